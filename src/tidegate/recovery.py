"""The engine as it was: from the newest snapshot that the tables have reached, or from nothing."""

from __future__ import annotations

import os

import structlog

from tidegate.clock import Clock
from tidegate.controls import VersionRecord, control_record
from tidegate.datafolder import DataFolder
from tidegate.engine import Engine, History, logged_program
from tidegate.errors import DamageError, InputError, TidegateError
from tidegate.eventlog.contract import EntryKind, EventLog
from tidegate.events.dedupe import Dedupe
from tidegate.lookup import LoggedIds
from tidegate.program import Program
from tidegate.snapshots import Snapshot, Snapshots

_log = structlog.get_logger()


def recover(
    program: Program,
    *,
    folder: DataFolder,
    log: EventLog,
    snapshots: Snapshots,
    position: int,
    clock: Clock,
    history: History | None = None,
) -> Engine:
    """An engine at or before `position`, the log offset below which the tables hold everything.

    What lies between is decided again, comes out equal, and is skipped by the tables. A snapshot
    that cannot be used is reported and the one before it is tried. `history` is the engine's.
    Raises: DamageError if the log no longer has what must be read.
    """
    if log.next_offset < position:
        raise DamageError(
            f"the tables hold what lies below offset {position}, but the log ends at "
            f"{log.next_offset}: bring back the whole data folder from a copy",
            offset=log.next_offset,
        )
    first = log.first_offset
    for snapshot in snapshots.load(offset_max=position):
        offset = snapshot.state.offset
        try:
            if offset >= first:
                return restored(snapshot, folder=folder, log=log, clock=clock, history=history)
            _log.error("snapshot_unusable", offset=offset, reason=f"the log begins at {first}")
        except TidegateError as error:
            _log.error("snapshot_unusable", offset=offset, reason=str(error))
    if first > 0:
        raise DamageError(
            f"nothing to begin from: the tables hold what lies below offset {position}, no "
            f"snapshot before that can be used, and the log begins at {first}: bring back the "
            "whole data folder from a copy, or begin a new one",
            offset=position,
        )
    return begun(
        first_program(log) or program, folder=folder, log=log, clock=clock, history=history
    )


def begun(
    program: Program,
    *,
    folder: DataFolder,
    log: EventLog,
    clock: Clock,
    history: History | None = None,
) -> Engine:
    """An engine that has seen nothing yet."""
    horizon = program.project.stream.dedupe_horizon_us
    ids = LoggedIds(log, program.schema)
    dedupe = Dedupe.open(folder.dedupe, horizon=horizon, key=folder.key(), lookup=ids)
    return Engine(
        program,
        dedupe,
        clock=clock,
        history=history,
        logged=ids.record,
        key=folder.key(),
        threads=threads_of_engine(),
    )


def threads_of_engine() -> int:
    """How many threads the features of large batches may use beside the other stages."""
    return max(1, (os.cpu_count() or 1) // 2)


def first_program(log: EventLog) -> Program | None:
    """The program that the log began with, whose horizon holds for all of it."""
    for entry in log.read(0, bytes_max=1):
        if entry.kind is EntryKind.CONTROL and len(entry.records):
            match control_record(entry.records[0], offset=entry.first_offset):
                case VersionRecord(files=files):
                    return logged_program(files, offset=entry.first_offset)
    return None


def restored(
    snapshot: Snapshot,
    *,
    folder: DataFolder,
    log: EventLog,
    clock: Clock,
    history: History | None = None,
) -> Engine:
    """An engine as it was when the snapshot was taken.

    Raises: DamageError if the snapshot or what it names is damaged.
    """
    state = snapshot.state
    program = Program.of(state.files)
    ids = LoggedIds(log, program.schema)
    dedupe = Dedupe.restore(
        state.dedupe,
        folder.dedupe,
        horizon=program.project.stream.dedupe_horizon_us,
        key=folder.key(),
        lookup=ids,
    )
    engine = Engine(
        program,
        dedupe,
        clock=clock,
        history=history,
        logged=ids.record,
        key=folder.key(),
        threads=threads_of_engine(),
    )
    try:
        engine.restore(state, snapshot.sections())
    except BaseException:
        dedupe.close()
        raise
    return engine


def refuse_other_dedupe(old: Program, new: Program) -> None:
    """Check that repeated ids are told as they were when the data folder was begun.

    What expired under a shorter horizon is gone from the index: a longer one would have holes. And
    the ids in the log are found by the name of their column.
    Raises: InputError.
    """
    if old.schema.id != new.schema.id:
        raise InputError(
            f"the stream's `id` was `{old.schema.id}` when the data folder was begun and cannot "
            f"become `{new.schema.id}`: set it back, or begin a new data folder"
        )
    before, after = (p.project.stream.dedupe_horizon_us // 1_000_000 for p in (old, new))
    if before != after:
        raise InputError(
            f"`dedupe_horizon` was {before} seconds when the data folder was begun and cannot "
            f"become {after} seconds: set it back, or begin a new data folder"
        )
