"""Snapshots of the engine's state: whole or not at all, checksummed, a few kept."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from tidegate.engine import EngineState
from tidegate.errors import DamageError, StorageFullError

_MAGIC = b"TIDEGATE-SNAPSHOT-1\n"
_DIGEST_BYTES = 32
_NAME = re.compile(r"[0-9]{20}\.snapshot")
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
        for path in reversed(self._files()):
            if int(path.stem) > offset_max:
                continue
            try:
                yield _read(path)
            except DamageError as error:
                _log.error("snapshot_damaged", file=path.name, reason=str(error))

    def prune(self, *, keep: int, offset_max: int) -> list[EngineState]:
        """Keep the newest `keep` good snapshots at or before `offset_max`, and return them.

        Those older than them go, and so do drafts. Damaged ones do not count.
        Raises: StorageFullError if files cannot be removed.
        """
        kept = list(islice(self.load(offset_max=offset_max), keep))
        oldest = kept[-1].offset if len(kept) == keep else 0
        try:
            for path in (*self._files(), *self._folder.glob("*.draft")):
                if path.suffix == ".draft" or int(path.stem) < oldest:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFullError(f"old snapshots cannot be removed: {error}") from error
        return kept

    def offsets(self) -> list[int]:
        """The offsets of the snapshots on disk, ascending."""
        return [int(p.stem) for p in self._files()]

    def _files(self) -> list[Path]:
        """The snapshot files, oldest first; what else lies in the folder is let alone."""
        return sorted(p for p in self._folder.glob("*.snapshot") if _NAME.fullmatch(p.name))

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path: Path) -> EngineState:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamageError(f"{path.name} cannot be read: {error}") from error
    digest, body = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise DamageError(f"{path.name} is torn or was changed")
    try:
        state = msgspec.msgpack.decode(body, type=EngineState)
    except msgspec.MsgspecError as error:
        raise DamageError(f"{path.name}: {error}") from error
    if state.offset != int(path.stem):
        raise DamageError(f"{path.name} holds the state at offset {state.offset}")
    return state
