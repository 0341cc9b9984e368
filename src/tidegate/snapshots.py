"""Snapshots of the engine's state: whole or not at all, checksummed, a few kept.

A file is a line that names the format, then sections, then an end. A section is its length in
bytes (8, little-endian), its SHA-256 and its bytes; the first one is the `EngineState`, those after
it are the buffers of the features' state, which may be larger than memory has room for twice and
are therefore written and read a few at a time. The end is a length that no section has and the
SHA-256 of all the checksums before it, so that a file that lacks a section is as torn as one that
lacks half of one. Files of the first format, which have a state and no sections, are read as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import msgspec
import structlog

from tidegate.engine import EngineState
from tidegate.errors import DamageError, StorageFullError
from tidegate.evaluator import Buffer

_OLD_MAGIC = b"TIDEGATE-SNAPSHOT-1\n"
_MAGIC = b"TIDEGATE-SNAPSHOT-2\n"
_HEAD = struct.Struct("<Q32s")
_END = 2**64 - 1
_NAME = re.compile(r"[0-9]{20}\.snapshot")
_AHEAD = 2  # sections fetched while others are hashed
_log = structlog.get_logger()

_Given = TypeVar("_Given")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk whose `state` is good; `sections` are checked as they are read."""

    state: EngineState
    path: Path

    def sections(self) -> Iterator[bytearray]:
        """The buffers of the features' state, in the order in which they were written.

        Raises: DamageError where one is torn or was changed, or where the file does not end as it
        should.
        """
        with _reading(self.path) as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                yield from islice(_sections(file, self.path.name), 1, None)

    def is_whole(self) -> bool:
        """Whether all of it is as it was written; one that is not is reported."""
        try:
            for _ in self.sections():
                pass
        except DamageError as error:
            _report(self.path, error)
            return False
        return True


class Snapshots:
    """The snapshot files of one folder, named by the log offset that they stand for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts: set[Path] = set()
        # Gigabytes are read once to see that they are good, not at each pruning.
        self._whole: dict[Path, tuple[int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: EngineState, sections: Iterable[Buffer] = ()) -> None:
        """Write a snapshot; it is there whole, even after a loss of power, or not at all.

        Raises: StorageFullError.
        """
        self.draft(state, sections)
        self.publish(state.offset)

    def draft(self, state: EngineState, sections: Iterable[Buffer] = ()) -> None:
        """Write a snapshot that counts only once it is published, durably.

        Raises: StorageFullError; then nothing of it is left.
        """
        draft = self._path(state.offset).with_suffix(".draft")
        self._drafts.add(draft)
        try:
            with draft.open("wb") as file:
                _write(file, [msgspec.msgpack.encode(state)], sections)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            self.discard(state.offset)
            if isinstance(error, OSError):
                raise StorageFullError(f"a snapshot cannot be written: {error}") from error
            raise

    def publish(self, offset: int) -> None:
        """Let a draft count. Raises: StorageFullError."""
        final = self._path(offset)
        draft = final.with_suffix(".draft")
        try:
            draft.replace(final)
            self._whole[final] = _mark(final)
            self._sync_folder()
        except OSError as error:
            raise StorageFullError(f"a snapshot cannot be written: {error}") from error
        self._drafts.discard(draft)

    def discard(self, offset: int) -> None:
        """Remove a draft that is not to be published."""
        draft = self._path(offset).with_suffix(".draft")
        self._drafts.discard(draft)
        with suppress(OSError):
            draft.unlink(missing_ok=True)

    def load(self, *, offset_max: int) -> Iterator[Snapshot]:
        """The snapshots at or before `offset_max` with a good state, newest first.

        Damaged ones are reported and left out; see `Snapshot.sections` for the features' state.
        """
        for path in self._newest_first(offset_max):
            snapshot = _loaded(path)
            if snapshot is not None:
                yield snapshot

    def _newest_first(self, offset_max: int) -> list[Path]:
        return [p for p in reversed(self._files()) if int(p.stem) <= offset_max]

    def prune(
        self,
        *,
        keep: int,
        offset_max: int,
        note: Callable[[EngineState], _Given],
        known: Mapping[int, _Given] | None = None,
    ) -> list[_Given]:
        """Keep the newest `keep` good snapshots at or before `offset_max`; gives a note on each.

        States may be large, so one is held at a time, and only what `note` gives of it stays. What
        this object has written or read whole, and is unchanged, is not read again where its note is
        in `known`, by offset.
        Those older than them go, and so do drafts of an earlier process. Damaged ones do not count.
        Raises: StorageFullError if files cannot be removed.
        """
        kept = list(islice(self._noted(offset_max, note, known or {}), keep))
        oldest = kept[-1][0] if len(kept) == keep else 0
        try:
            for path in self._files():
                if int(path.stem) < oldest:
                    path.unlink(missing_ok=True)
                    self._whole.pop(path, None)
            for path in self._folder.glob("*.draft"):
                if path not in self._drafts:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFullError(f"old snapshots cannot be removed: {error}") from error
        return [noted for _, noted in kept]

    def _noted(
        self, offset_max: int, note: Callable[[EngineState], _Given], known: Mapping[int, _Given]
    ) -> Iterator[tuple[int, _Given]]:
        """Offsets and notes of the good snapshots, newest first."""
        for path in self._newest_first(offset_max):
            offset = int(path.stem)
            if offset in known and self._whole.get(path) == _mark(path):
                yield offset, known[offset]
                continue
            snapshot = _loaded(path)
            if snapshot is not None and self._is_whole(snapshot):
                yield offset, note(snapshot.state)

    def offsets(self) -> list[int]:
        """The offsets of the snapshots on disk, ascending."""
        return [int(p.stem) for p in self._files()]

    def newest(self) -> tuple[int, int, float] | None:
        """Offset, bytes and time of writing (seconds since 1970) of the newest one on disk."""
        for path in reversed(self._files()):
            with suppress(FileNotFoundError):  # pruned meanwhile
                found = path.stat()
                return int(path.stem), found.st_size, found.st_mtime
        return None

    def _path(self, offset: int) -> Path:
        return self._folder / f"{offset:020d}.snapshot"

    def _files(self) -> list[Path]:
        """The snapshot files, oldest first; what else lies in the folder is let alone."""
        return sorted(p for p in self._folder.glob("*.snapshot") if _NAME.fullmatch(p.name))

    def _is_whole(self, snapshot: Snapshot) -> bool:
        mark = _mark(snapshot.path)
        if self._whole.get(snapshot.path) != mark:
            if not snapshot.is_whole():
                return False
            self._whole[snapshot.path] = mark
        return True

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mark(path: Path) -> tuple[int, int]:
    """What changes when a file is written to."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _report(path: Path, error: DamageError) -> None:
    _log.error("snapshot_damaged", file=path.name, reason=str(error))


def _write(file: IO[bytes], *parts: Iterable[Buffer]) -> None:
    whole = hashlib.sha256()
    file.write(_MAGIC)
    sections = (memoryview(section).cast("B") for part in parts for section in part)
    for content, digest in _digested((s, s) for s in sections):
        file.write(_HEAD.pack(len(content), digest))
        file.write(content)
        whole.update(digest)
    file.write(_HEAD.pack(_END, whole.digest()))


def _digested(
    given: Iterable[tuple[_Given, Buffer]], *, ahead: int = _AHEAD
) -> Iterator[tuple[_Given, bytes]]:
    """Each with the SHA-256 of its content, made while up to `ahead` more are fetched."""
    underway: deque[tuple[_Given, Future[bytes]]] = deque()
    with ThreadPoolExecutor(max(1, ahead)) as pool:
        for what, content in given:
            underway.append((what, pool.submit(_digest, content)))
            if len(underway) > ahead:
                first, digest = underway.popleft()
                yield first, digest.result()
        for first, digest in underway:
            yield first, digest.result()


def _digest(content: Buffer) -> bytes:
    return hashlib.sha256(content).digest()


def _reading(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DamageError(f"{path.name} cannot be read: {error}") from error


def _sections(file: IO[bytes], name: str, *, ahead: int = _AHEAD) -> Iterator[bytearray]:
    """The sections of a file of the present format, from behind its first line."""
    given = (((content, told), content) for content, told in _contents(file, name))
    for (content, told), digest in _digested(given, ahead=ahead):
        if digest != told:
            raise DamageError(f"{name} is torn or was changed")
        yield content


def _contents(file: IO[bytes], name: str) -> Iterator[tuple[bytearray, bytes]]:
    """The sections with the checksums that the file has of them, which are not looked at yet."""
    whole = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    while True:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise DamageError(f"{name} is torn")
        length, digest = _HEAD.unpack(head)
        if length == _END:
            break
        yield _content(file, name, length, size), digest
        whole.update(digest)
    if whole.digest() != digest or file.read(1):
        raise DamageError(f"{name} was changed")


def _content(file: IO[bytes], name: str, length: int, size: int) -> bytearray:
    if length > size - file.tell():
        raise DamageError(f"{name} is torn")
    content = bytearray(length)
    try:
        read = file.readinto(content)  # type: ignore[attr-defined] # every buffered file has it
    except OSError as error:
        raise DamageError(f"{name} cannot be read: {error}") from error
    if read != length:
        raise DamageError(f"{name} is torn")
    return content


def _loaded(path: Path) -> Snapshot | None:
    """The snapshot, or None where its state is damaged, which is reported."""
    try:
        return Snapshot(_state(path), path)
    except DamageError as error:
        _report(path, error)
        return None


def _state(path: Path) -> EngineState:
    with _reading(path) as file:
        body = _state_bytes(file, path.name)
    try:
        state = msgspec.msgpack.decode(body, type=EngineState)
    except msgspec.MsgspecError as error:
        raise DamageError(f"{path.name}: {error}") from error
    if state.offset != int(path.stem):
        raise DamageError(f"{path.name} holds the state at offset {state.offset}")
    return state


def _state_bytes(file: IO[bytes], name: str) -> bytes | bytearray:
    try:
        magic = file.read(len(_MAGIC))
        if magic == _MAGIC:
            return next(_sections(file, name, ahead=0), b"")
        digest, body = file.read(32), file.read()
    except OSError as error:
        raise DamageError(f"{name} cannot be read: {error}") from error
    if magic != _OLD_MAGIC or hashlib.sha256(body).digest() != digest:
        raise DamageError(f"{name} is torn or was changed")
    return body
