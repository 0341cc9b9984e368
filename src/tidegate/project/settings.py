"""The tables of `tidegate.toml` and `rules.toml`, each setting declared once."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from tidegate.project.setting import optional, required, setting
from tidegate.project.shares import Share
from tidegate.project.values import (
    Boolean,
    Choice,
    Columns,
    Duration,
    Integer,
    Name,
    Size,
    Source,
    SqlFile,
    Text,
    ValueType,
)
from tidegate.schema import Column, ColumnType, Schema
from tidegate.sql.source import SourceText


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The one event stream of the project."""

    id: str = required(Text(), "The column that tells one event from another; text or bigint.")
    event_time: str = required(Text(), "The column that says when the event happened; a timestamp.")
    allowed_lateness_us: int = setting(
        Duration(high="365 days"),
        "0 seconds",
        "How far an event may lie behind the latest event time seen and still count in its window.",
    )
    dedupe_horizon_us: int = setting(
        Duration(low="1 second", high="365 days"),
        "7 days",
        "How long an id is remembered, by time of arrival, to tell that an event came twice.",
    )
    idle_after_us: int = setting(
        Duration(word="off"),
        "off",
        "On a stream that falls silent for this long, event time passes on as on the wall clock, "
        "so that windows close.",
    )
    ahead_max_us: int = setting(
        Duration(high="36500 days"),
        "1 day",
        "How far an event time may lie ahead of the time of arrival; beyond it the record becomes "
        "a dead letter, since one date far ahead would close every window.",
    )
    epoch_unit: str = setting(
        Choice(("none", "s", "ms", "us", "ns")),
        "none",
        "The unit of times that are written as numbers since 1970; `none` refuses such times.",
    )
    record_bytes_max: int = setting(
        Size(low="64 B", high="16 MiB"),
        "256 KiB",
        "Records larger than this become dead letters.",
    )
    columns: tuple[Column, ...] = required(
        Columns(), "The columns of an event and their types; what is not named is kept in `extra`."
    )

    @cached_property
    def schema(self) -> Schema:
        """The declared columns, with id and event time."""
        return Schema(self.columns, self.id, self.event_time)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features: one SELECT with window functions, computed for each event."""

    sql: SourceText = required(SqlFile(), "The file of the SELECT.")  # noqa: RUF009 - a field
    lateness_us: int = setting(
        Duration(high="365 days"),
        "1 day",
        "How far an event may lie behind the latest event time seen and still see all that its "
        "windows hold; state is kept that much longer.",
    )
    look_back_us: int = setting(
        Duration(low="1 second", high="36500 days"),
        "400 days",
        "How far back windows over ROWS and `lag` look at most, which bounds their state.",
    )


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels: what events truly were, told later by their ids."""

    column: str | None = optional(
        Text(),
        "The column of the stream that labels fill, so that features read them: bigint or double "
        "(1 for fraud, 0 for legitimate), boolean, or text.",
    )
    waiting_max: int = setting(
        Integer(0, 10_000_000),
        100_000,
        "Labels that may wait for events that have not come yet; beyond that the oldest go.",
    )
    waiting_time_us: int = setting(
        Duration(low="1 second", high="3650 days"),
        "30 days",
        "How long a label waits for its event, told by the arrival of other labels.",
    )


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window query: its rows land in a table of its name."""

    name: str = required(Name(), "The name of the query and of the table that takes its rows.")
    sql: SourceText = required(SqlFile(), "The file of the query.")  # noqa: RUF009 - a field
    allowed_lateness_us: int | None = optional(
        Duration(high="365 days"), "Allowed lateness of this query; that of the stream if absent."
    )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition, what follows from it, and why, in words."""

    name: str = required(Name(), "The name of the rule, as decisions show it.")
    when: SourceText = required(  # noqa: RUF009 - a field
        Source("SQL condition"), "The condition, in SQL, on an event's columns."
    )
    action: str = required(
        Choice(("allow", "approve", "review", "block")),
        "What to do with the event: the strongest of approve, review and block counts; "
        "`allow` overrides them all.",
    )
    reason: SourceText = required(  # noqa: RUF009 - a field
        Source("text with {column} holes"), "Why, in words; `{column}` shows the event's value."
    )
    mode: str = setting(
        Choice(("live", "shadow", "off")),
        "live",
        "`shadow` rules are evaluated and logged but change nothing; `off` rules are left alone.",
    )
    rollout: Fraction | None = optional(  # noqa: RUF009 - a field
        Share(),
        "The share of entities for which the rule is live; for the others it is a shadow rule. All "
        "of them if absent.",
    )
    rollout_by: SourceText | None = optional(  # noqa: RUF009 - a field
        Source("column"), "The column that holds the entity, for `rollout`."
    )


@dataclass(frozen=True, kw_only=True)
class ValueList:
    """A list of values that people keep while the stream runs; rules ask `x IN LIST('name')`."""

    name: str
    type: ColumnType = required(ValueType(), "The type of its values.")  # noqa: RUF009 - a field
    description: str = setting(Text(), "values that people keep", "What it is for, in words.")


@dataclass(frozen=True, kw_only=True)
class Service:
    """The HTTP door."""

    host: str = setting(Text(), "127.0.0.1", "The address to listen on.")
    port: int = setting(
        Integer(0, 65_535), 8700, "The port to listen on; 0 takes any that is free."
    )
    body_bytes_max: int = setting(
        Size(low="1 KiB", high="1 GiB"),
        "8 MiB",
        "Larger request bodies are refused, before and after decompression.",
    )
    batch_records_max: int = setting(
        Integer(1, 10_000_000), 100_000, "Requests with more records than this are refused."
    )
    queue_bytes_max: int = setting(
        Size(low="1 MiB", high="64 GiB"),
        "64 MiB",
        "Bytes that may wait for the log before senders are told to come back later.",
    )
    queue_records_max: int = setting(
        Integer(1, 100_000_000),
        500_000,
        "Records that may wait for the log before senders are told to come back later.",
    )
    request_timeout_us: int = setting(
        Duration(low="100 ms", high="1 hour"),
        "30 seconds",
        "How long a request may take before it is given up.",
    )
    slow_request_us: int = setting(
        Duration(low="1 ms", high="1 hour"),
        "1 second",
        "Requests that take longer have a line in the log, as have those that fail.",
    )
    drain_timeout_us: int = setting(
        Duration(low="0 seconds", high="1 hour"),
        "30 seconds",
        "How long running requests and waiting work may take to end when the server is stopped.",
    )
    porters: int | None = optional(
        Integer(0, 64),
        "Processes that keep connections of `POST /v1/score` while many wait, started when there "
        "are any; one for two processors, at most four, unless said otherwise. With 0, or with "
        "TLS, the one process keeps all of them.",
    )
    porters_from: int = setting(
        Integer(0, 1_000_000),
        24,
        "Events that wait for a decision at a time, from which on connections are given to "
        "porters: where fewer wait, the way there and back costs more than it saves.",
    )
    producer_endpoint: bool = setting(
        Boolean(),
        False,  # noqa: FBT003 - a default as it is written
        "Whether `/store-events-producer-fn` makes store events, for demonstrations.",
    )
    tls_certificate: str | None = optional(
        Text(), "The file of the certificate (chain) in PEM, relative to the project's folder."
    )
    tls_key: str | None = optional(
        Text(), "The file of the certificate's key in PEM, without a password."
    )


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may use the HTTP door: whoever has an API key, made by `tidegate keys`."""

    required: bool = setting(
        Boolean(),
        True,  # noqa: FBT003 - a default as it is written
        "Whether requests need an API key; `false` goes with an address of this machine alone.",
    )
    wrong_keys_per_minute: int = setting(
        Integer(1, 10_000),
        20,
        "Wrong keys that a client address may send in a minute before it is told to come back "
        "later; five times as many may be sent under one prefix.",
    )


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a query over HTTP (`POST /v1/query`) may take."""

    rows_max: int = setting(
        Integer(1, 10_000_000),
        10_000,
        "Rows that an answer has at most; a request may ask for fewer by `limit`.",
    )
    result_bytes_max: int = setting(
        Size(low="1 KiB", high="1 GiB"),
        "16 MiB",
        "Bytes that the rows of an answer take at most; the rest is cut off.",
    )
    timeout_us: int = setting(
        Duration(low="100 ms", high="1 hour"),
        "30 seconds",
        "How long a query may take, waiting for others included, before it is ended.",
    )
    memory_bytes_max: int = setting(
        Size(low="64 MiB", high="1 TiB"),
        "512 MiB",
        "Memory that one query may take; it never goes to the disk instead.",
    )
    threads: int = setting(Integer(1, 256), 2, "Threads that one query may use.")
    running_max: int = setting(
        Integer(1, 64), 2, "Queries that run at once, each in a process of its own."
    )
    waiting_max: int = setting(
        Integer(0, 10_000),
        16,
        "Queries that may wait for those that run, before callers are told to come back later.",
    )


@dataclass(frozen=True, kw_only=True)
class Score:
    """Decisions while somebody waits: `POST /v1/score`."""

    timeout_us: int = setting(
        Duration(low="1 ms", high="1 minute"),
        "1 second",
        "How long a caller waits for a decision who does not say `timeout_ms` itself.",
    )
    fallback_action: str = setting(
        Choice(("approve", "review", "block")),
        "review",
        "What is answered when the time runs out; the event is decided all the same.",
    )
    events_max: int = setting(
        Integer(1, 10_000), 1_000, "Requests with more events than this are refused."
    )
    waiting_max: int = setting(
        Integer(1, 1_000_000),
        768,
        "Events that may wait for their decision; who comes while so many wait is told to come "
        "back later.",
    )
    hold_back_after_us: int = setting(
        Duration(low="1 ms", high="1 minute"),
        "100 ms",
        "Once the oldest caller has waited this long and more than 64 wait, others are told to "
        "come back later, so that who is let in is answered soon.",
    )


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """The tables that events, decisions and all else land in."""

    commit_every_us: int = setting(
        Duration(low="10 ms", high="1 hour"),
        "1 second",
        "How long rows may wait before they are committed to their tables.",
    )
    commit_rows: int = setting(
        Integer(1, 10_000_000), 50_000, "Rows that are committed without waiting any longer."
    )
    compact_after: int = setting(
        Integer(2, 10_000), 32, "Small files in a partition from which on they are merged."
    )
    vacuum_after_us: int = setting(
        Duration(low="1 second", high="365 days"),
        "1 hour",
        "How long files that were merged away are kept for queries that still read them.",
    )
    snapshot_every_us: int = setting(
        Duration(low="100 ms", high="1 day"),
        "30 seconds",
        "How often the engine's state is saved, which bounds the time to start again.",
    )


@dataclass(frozen=True, kw_only=True)
class Log:
    """The event log."""

    keep_us: int = setting(
        Duration(low="1 minute", word="forever"),
        "forever",
        "How long records are kept, by time of arrival; only what every consumer has passed goes.",
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where everything lies that Tidegate writes."""

    folder: str = setting(
        Text(), "data", "The data folder; relative to the project's folder unless absolute."
    )
