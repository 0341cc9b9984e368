"""The note of how far every table holds everything, kept beside the tables.

It is written only after what it claims is on the disk itself, replaced by an atomic rename, and
carries a checksum: a torn note is as good as none. Losing it costs time, never rows (see
`warehouse.py`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NAME = "position.json"
_WAITERS = 8
_FEW_FILES = 32  # one thread is enough; more would take turns with those who decide


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every table of `versions` holds everything below `position`.

    `versions` gives for each table the Delta version up to which all its files are durable.
    """

    position: int
    versions: Mapping[str, int]


def write(root: Path, checkpoint: Checkpoint) -> None:
    """Replace the note; it is on the disk when this returns."""
    body = json.dumps({"position": checkpoint.position, "versions": dict(checkpoint.versions)})
    draft = root / (_NAME + ".draft")
    with draft.open("wb") as file:
        file.write(f"{zlib.crc32(body.encode()):08x} {body}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(root / _NAME)
    sync_folder(root)


def read(root: Path) -> Checkpoint | None:
    """The note, or None where there is none or it is torn."""
    try:
        checksum, _, body = (root / _NAME).read_bytes().rstrip(b"\n").partition(b" ")
    except FileNotFoundError:
        return None
    if checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    found = json.loads(body)
    return Checkpoint(int(found["position"]), {k: int(v) for k, v in found["versions"].items()})


def sync_files(paths: Sequence[Path]) -> None:
    """Make the content of files durable; one that is gone is passed over."""
    if len(paths) <= _FEW_FILES:
        for path in paths:
            _sync_file(path)
        return
    # Waiting side by side, they share the file system's own commits: a quarter of the time.
    with ThreadPoolExecutor(_WAITERS, thread_name_prefix="sync") as waiters:
        list(waiters.map(_sync_file, paths))


def _sync_file(path: Path) -> None:
    with suppress(FileNotFoundError):
        _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
