"""The sinks of a project: what feed each one follows, and where it writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tidegate.access.pii import HidingSink, hiding_of
from tidegate.clock import Clock
from tidegate.datafolder import DataFolder
from tidegate.eventlog.contract import EventLog
from tidegate.hiding import Hiding
from tidegate.memory import Turn
from tidegate.program import Program
from tidegate.project.sinks import ObjectsSink
from tidegate.project.sinks import Sink as SinkSettings
from tidegate.sinks.capture import CaptureFeed
from tidegate.sinks.contract import Feed, Sink
from tidegate.sinks.decided import DecidedFeed
from tidegate.sinks.ledger import Ledger
from tidegate.sinks.objects import Objects, pace_of
from tidegate.sinks.runner import SinkRunner
from tidegate.tables import events_schema

Tables = Callable[[str], Feed]

_CONSUMER = "sink "  # before a sink's name, where the log lists who needs it


@dataclass(frozen=True, slots=True, eq=False)
class Delivering:
    """A sink of the project: its settings, the sink itself, and whether it reads the log."""

    settings: ObjectsSink
    sink: Sink
    reads_log: bool


def open_sinks(
    program: Program, *, folder: Path, environment: Mapping[str, str]
) -> dict[str, Delivering]:
    """The sinks that the project names; nothing is connected to yet.

    Raises: InputError for a path that does not fit the rows, or a variable that is not set.
    """
    opened = {}
    hiding = hiding_of(program.project, folder=DataFolder(folder))
    for settings in program.project.sinks:
        assert isinstance(settings, ObjectsSink)  # noqa: S101 - the only type there is so far
        sink = Objects.open(
            settings,
            columns=_columns(program, settings),
            id_column=program.schema.id,
            folder=folder,
            environment=environment,
        )
        hides = _hiding(sink, settings, hiding)
        opened[settings.name] = Delivering(settings, hides, settings.format == "capture")
    return opened


def _hiding(sink: Sink, settings: ObjectsSink, hiding: Hiding | None) -> Sink:
    """The sink, given pseudonyms where columns are marked `pii`."""
    if hiding is None:
        return sink
    table = "events" if settings.table == "decisions" else settings.table
    return HidingSink(sink, hiding.columns(table), hiding.key)


def feed_of(delivering: Delivering, tables: Tables, log: EventLog) -> Feed:
    """The rows that a sink follows."""
    settings = delivering.settings
    if settings.table == "decisions":
        return DecidedFeed(tables("events"), tables("decisions"), actions=settings.actions)
    feed = tables(settings.table)
    return CaptureFeed(feed, log) if delivering.reads_log else feed


def _columns(program: Program, settings: SinkSettings) -> Sequence[str]:
    events = events_schema(program.schema).names
    match settings.table:
        case "events":
            return [*events, "record"]
        case "decisions":
            added = ["decided_at", "decision"]
            return [*events, *(f"tidegate_{n}" if n in events else n for n in added)]
        case name:
            return program.window_schemas()[name].names


def make_runners(
    sinks: Mapping[str, Delivering],
    *,
    tables: Tables,
    log: EventLog,
    ledger: Ledger,
    clock: Clock,
    busy: Callable[[], bool],
    turn: Turn,
) -> list[SinkRunner]:
    """A runner for each sink, not started yet; the log keeps what the sinks that read it need.

    Sinks hold back while `busy`: they share a process with the decisions, which come first. Then
    they wait for their `turn`, so that not all take memory at the same time.
    """
    for consumer in log.positions():
        if consumer.startswith(_CONSUMER) and consumer.removeprefix(_CONSUMER) not in sinks:
            log.forget(consumer)  # a sink that was taken away holds nothing back
    make = partial(
        _runner,
        tables=tables,
        log=log,
        ledger=ledger,
        clock=clock,
        busy=busy,
        turn=turn,
    )
    return [make(n, d) for n, d in sinks.items()]


def _runner(
    name: str,
    delivering: Delivering,
    *,
    tables: Tables,
    log: EventLog,
    ledger: Ledger,
    clock: Clock,
    busy: Callable[[], bool],
    turn: Turn,
) -> SinkRunner:
    def delivered(offset: int) -> None:
        if delivering.reads_log:
            log.set_position(_CONSUMER + name, offset)

    start = log.first_offset if delivering.reads_log else 0
    delivered(start)
    return SinkRunner(
        name,
        sink=delivering.sink,
        feed=feed_of(delivering, tables, log),
        ledger=ledger,
        pace=pace_of(delivering.settings),
        clock=clock,
        random=random.random,
        start=start,
        delivered=delivered,
        busy=busy,
        turn=turn,
    )
