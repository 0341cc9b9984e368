"""What the server and the processes that it starts have in common."""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import suppress

# What a process needs to find its own modules; secrets are in no variable that it is given.
_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")

_OPEN_FILES_MAX = 65_536

_SWITCH_SECONDS = 0.0002  # Python's own is 25 times that


def environment() -> dict[str, str]:
    """The environment of a process that the server starts."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # another system has other ways
        return os.cpu_count() or 1


def tune_interpreter() -> None:
    """Have Python look seldom for cycles and often for who waits, in a process that only serves.

    What is loaded by now stays: to look through it again and again would halve the rate of single
    events and stop the loop for tenths of a second at a time. A decision passes through several
    threads, each of which may have to wait for one that writes tables.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(_SWITCH_SECONDS)


def open_more_files() -> None:
    """Raise how many files and connections may be open, as far as the system permits.

    What a shell or an init system gives to start with, often 1,024, is less than the callers who
    may come at once; one who comes beyond it is neither answered nor refused. Processes that this
    one starts have the same limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
