"""The engine as it was: from the newest snapshot that the tables have reached, or from nothing."""

from __future__ import annotations

import structlog

from tidegate.clock import Clock
from tidegate.datafolder import DataFolder
from tidegate.engine import Engine, EngineState
from tidegate.errors import DamageError, InputError, TidegateError
from tidegate.eventlog.contract import EventLog
from tidegate.events.dedupe import Dedupe
from tidegate.lookup import LoggedIds
from tidegate.program import Program
from tidegate.snapshots import Snapshots

_log = structlog.get_logger()


def recover(
    program: Program,
    *,
    folder: DataFolder,
    log: EventLog,
    snapshots: Snapshots,
    position: int,
    clock: Clock,
) -> Engine:
    """An engine at or before `position`, the log offset below which the tables hold everything.

    What lies between is decided again, comes out equal, and is skipped by the tables. A snapshot
    that cannot be used is reported and the one before it is tried.
    Raises: DamageError if the log no longer has what must be read.
    """
    ids = LoggedIds(log, program.schema)
    for state in snapshots.load(offset_max=position):
        try:
            return _restored(state, folder, ids, clock)
        except TidegateError as error:
            _log.error("snapshot_unusable", offset=state.offset, reason=str(error))
    if log.first_offset > 0:
        raise DamageError(
            f"nothing to begin from: the tables hold what lies below {position}, no snapshot "
            f"before that can be used, and the log begins at {log.first_offset}",
            offset=position,
        )
    horizon = program.project.stream.dedupe_horizon_us
    dedupe = Dedupe.open(folder.dedupe, horizon=horizon, key=folder.key(), lookup=ids)
    return Engine(program, dedupe, clock=clock)


def _restored(state: EngineState, folder: DataFolder, ids: LoggedIds, clock: Clock) -> Engine:
    program = Program.of(state.files)
    dedupe = Dedupe.restore(
        state.dedupe,
        folder.dedupe,
        horizon=program.project.stream.dedupe_horizon_us,
        key=folder.key(),
        lookup=ids,
    )
    engine = Engine(program, dedupe, clock=clock)
    engine.restore(state)
    return engine


def refuse_another_horizon(old: Program, new: Program) -> None:
    """Check that the dedupe horizon stays as it was when the data folder was begun.

    What expired under a shorter one is gone from the index: a longer one would have holes.
    Raises: InputError.
    """
    before, after = (p.project.stream.dedupe_horizon_us // 1_000_000 for p in (old, new))
    if before != after:
        raise InputError(
            f"`dedupe_horizon` was {before} seconds when the data folder was begun and cannot "
            f"become {after} seconds: set it back, or begin a new data folder"
        )
