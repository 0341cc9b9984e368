"""Parts of a measurement that run in a process of their own, so that memory and time are theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus import DATA

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "store"
_SECONDS_MAX = 1_800.0


def run(module: str, *arguments: str | Path | float) -> dict[str, Any]:
    """What `python -m benchmarks.<module> arguments…` prints as JSON on its last line.

    Raises: subprocess.CalledProcessError if it fails, its error output goes through;
    subprocess.TimeoutExpired after half an hour.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, cwd=ROOT, timeout=_SECONDS_MAX
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder on the same disk as the data, gone afterwards."""
    DATA.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=DATA))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_project() -> Iterator[Path]:
    """The store example as it is shipped, with an empty data folder."""
    with fresh_folder() as folder:
        yield Path(shutil.copytree(EXAMPLE, folder / "store"))


@dataclass(frozen=True, slots=True)
class Use:
    """What this process has used so far: processor time in seconds, peak memory in MB (10^6)."""

    user_seconds: float
    system_seconds: float
    peak_mb: float

    @classmethod
    def now(cls, process: int | None = None) -> Use:
        """Of this process or another one, all its threads together.

        The peak is that of this program alone: `ru_maxrss` would begin with the parent's.
        """
        folder = Path(f"/proc/{process or 'self'}")
        peak = folder.joinpath("status").read_text().partition("VmHWM:")[2].split()[0]
        times = folder.joinpath("stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return cls(int(times[11]) / tick, int(times[12]) / tick, int(peak) * 1024 / 1e6)

    @classmethod
    def of_children(cls, process: int) -> list[Use]:
        """What each process has used that another one has started and that runs still."""
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [cls.now(int(child)) for child in children]

    @property
    def seconds(self) -> float:
        """Processor time in user and system mode."""
        return self.user_seconds + self.system_seconds


@dataclass(frozen=True, slots=True)
class Processors:
    """What the processors of this machine did so far, and were kept from doing; in ticks.

    In a guest its host may give a processor to others while the guest wants it ("steal" in
    `proc(5)`). All that ran then took longer, for no reason that it has itself.
    """

    used: int
    withheld: int

    @classmethod
    def now(cls) -> Processors:
        """All processors together."""
        times = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _, _, irq, softirq, steal = times
        return cls(user + nice + system + irq + softirq, steal)

    def withheld_since(self, before: Processors) -> float:
        """The share of the time wanted since `before` that was not had, 0 to 1."""
        withheld = self.withheld - before.withheld
        wanted = self.used - before.used + withheld
        return withheld / wanted if wanted else 0.0
