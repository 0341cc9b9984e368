"""What the storage library reports, said in Tidegate's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import DeltaError

from tidegate.errors import DamageError, StorageFullError, TidegateError

_FULL = {
    28: "the disk is full",
    122: "the disk quota is used up",
    27: "the file size limit is reached",
    30: "the folder is read-only",
    13: "writing is not permitted",
    1: "writing is not permitted",
}


@contextmanager
def storage(doing: str) -> Iterator[None]:
    """A block whose storage errors come out as StorageFullError or DamageError.

    `doing` says what was being done, as in "writing table `events`".
    """
    try:
        yield
    except TidegateError:
        raise
    except (OSError, DeltaError, ValueError) as error:
        raise _translated(doing, error) from error


def _translated(doing: str, error: Exception) -> TidegateError:
    # The Delta library passes the system's words on as text: (os error N).
    codes = [
        n for n in _FULL if getattr(error, "errno", None) == n or f"(os error {n})" in str(error)
    ]
    if codes:
        said = _FULL[codes[0]]
        return StorageFullError(f"{doing}: {said}; free space or mend the folder, it goes on then")
    return DamageError(f"{doing}: {error}")
