"""A look into SQLite's write-ahead log, for commits that recovery had to leave out.

SQLite reads the WAL up to the first frame whose checksum fails and takes the rest for a commit
that a crash cut short. That is right for one commit: the next one starts only once the one before
is durable. If more than one whole commit lies behind that frame, they had been durable, and were
acknowledged; then the frame is not torn but damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEAD_BYTES = 32
_FRAME_HEAD = struct.Struct(">II8s8s")  # page, pages after a commit or 0, salt, checksum
_MASK = 0xFFFFFFFF


def beside(path: Path) -> Path:
    """The WAL of the database at `path`."""
    return path.with_name(path.name + "-wal")


def lost_commits(wal: Path, *, valid_frames: int, page_bytes: int) -> int:
    """How many durable commits lie behind the first `valid_frames` frames, at least.

    Frames of an earlier round of the WAL do not count: they carry another salt.
    """
    with wal.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return 0
        frames = list(_frames(file, valid_frames, page_bytes))
    sound = _is_sound(head)
    salt = head[16:24] if sound else next((s for _, s in frames), b"")
    commits = sum(1 for size, s in frames if size and s == salt)
    # The last one may be torn. A head that is damaged, though, was durable before any of them.
    return max(0, commits - 1) if sound else commits


def _frames(file: BinaryIO, skip: int, page_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Size committed, or 0, and salt of each whole frame behind the first `skip`."""
    at = _HEAD_BYTES + skip * (_FRAME_HEAD.size + page_bytes)
    end = file.seek(0, 2)
    while at + _FRAME_HEAD.size + page_bytes <= end:
        file.seek(at)
        _, size, salt, _ = _FRAME_HEAD.unpack(file.read(_FRAME_HEAD.size))
        yield size, salt
        at += _FRAME_HEAD.size + page_bytes


def _is_sound(head: bytes) -> bool:
    """Whether the head of the WAL matches its checksum (sqlite.org/fileformat2.html, 4.2)."""
    words = struct.unpack(">6I" if head[3] & 1 else "<6I", head[:24])
    a = b = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        a = (a + first + b) & _MASK
        b = (b + second + a) & _MASK
    return (a, b) == struct.unpack(">II", head[24:])
