"""Snapshots of the engine's state: whole or not at all, checksummed, a few kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from tidegate.engine import EngineState
from tidegate.errors import DamageError, StorageFullError

_MAGIC = b"TIDEGATE-SNAPSHOT-1\n"
_DIGEST_BYTES = 32
_log = structlog.get_logger()


class Snapshots:
    """The snapshot files of one folder, named by the log offset that they stand for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: EngineState) -> None:
        """Write a snapshot; it is there whole, even after a loss of power, or not at all.

        Raises: StorageFullError.
        """
        try:
            self._save(state)
        except OSError as error:
            raise StorageFullError(f"a snapshot cannot be written: {error}") from error

    def _save(self, state: EngineState) -> None:
        body = msgspec.msgpack.encode(state)
        final = self._folder / f"{state.offset:020d}.snapshot"
        draft = final.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(_MAGIC + hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(final)
        self._sync_folder()

    def load(self, *, offset_max: int) -> Iterator[EngineState]:
        """The good snapshots at or before `offset_max`, newest first; damaged ones are reported."""
        for path in sorted(self._folder.glob("*.snapshot"), reverse=True):
            if int(path.stem) > offset_max:
                continue
            try:
                yield _read(path)
            except DamageError as error:
                _log.error("snapshot_damaged", file=path.name, reason=str(error))

    def prune(self, *, keep: int, offset_max: int) -> None:
        """Remove all but the newest `keep` snapshots at or before `offset_max`."""
        usable = [p for p in sorted(self._folder.glob("*.snapshot")) if int(p.stem) <= offset_max]
        for path in usable[:-keep]:
            path.unlink()
        for draft in self._folder.glob("*.draft"):
            draft.unlink()

    def offsets(self) -> list[int]:
        """The offsets of the snapshots on disk, ascending."""
        return sorted(int(p.stem) for p in self._folder.glob("*.snapshot"))

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path: Path) -> EngineState:
    data = path.read_bytes()
    digest, body = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise DamageError(f"{path.name} is torn or was changed")
    try:
        return msgspec.msgpack.decode(body, type=EngineState)
    except msgspec.MsgspecError as error:
        raise DamageError(f"{path.name}: {error}") from error
