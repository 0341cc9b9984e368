"""What the storage library reports, said in Tidegate's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import DeltaError

from tidegate.errors import DamageError, StorageFullError, TidegateError

# The library passes the system's words on as text: (os error N).
_FULL = {
    "(os error 28)": "the disk is full",
    "(os error 122)": "the disk quota is used up",
    "(os error 27)": "the file size limit is reached",
    "(os error 30)": "the folder is read-only",
    "(os error 13)": "writing is not permitted",
    "(os error 1)": "writing is not permitted",
}
_FULL_ERRNO = frozenset({28, 122, 27, 30, 13, 1})


@contextmanager
def storage(doing: str) -> Iterator[None]:
    """A block whose storage errors come out as StorageFullError or DamageError.

    `doing` says what was being done, as in "writing table `events`".
    """
    try:
        yield
    except TidegateError:
        raise
    except OSError as error:
        raise _translated(doing, error, full=error.errno in _FULL_ERRNO) from error
    except (DeltaError, ValueError) as error:
        raise _translated(doing, error, full=False) from error


def _translated(doing: str, error: Exception, *, full: bool) -> TidegateError:
    reason = next((said for code, said in _FULL.items() if code in str(error)), None)
    if reason is not None or full:
        said = reason or str(error)
        return StorageFullError(f"{doing}: {said}; free space or mend the folder, it goes on then")
    return DamageError(f"{doing}: {error}")
