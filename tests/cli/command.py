"""What tests of the command line share."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.testing import store
from waiting import PATIENCE_SECONDS

START_US = 1_686_081_600_000_000  # 2023-06-06 20:00


@dataclass(frozen=True)
class Answer:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


Run = Callable[..., Answer]


def command(*words: object) -> list[str]:
    """The real command, for a process of its own."""
    return [sys.executable, "-m", "tidegate", *map(str, words)]


def process(*words: object, timeout: float = 4 * PATIENCE_SECONDS) -> Answer:
    done = subprocess.run(command(*words), capture_output=True, timeout=timeout, check=False)
    return Answer(done.returncode, done.stdout, done.stderr.decode())


def generate(
    path: Path, *, count: int, seed: int = 7, unreadable: float = 0.0, repeated: float = 0.0
) -> Path:
    """A file of store events."""
    batches = store.generate_batches(
        count,
        seed=seed,
        start_time_us=START_US,
        batch_records=1_000,
        rate_per_second=5.0,
        unreadable_share=unreadable,
        duplicate_share=repeated,
    )
    path.write_bytes(b"".join(batches))
    return path
