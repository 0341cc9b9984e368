"""The engine is a pure function of the log: however it is cut, decoded, stopped and restored."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.controls import TimeRecord, VersionRecord, control
from tidegate.counters import Counters
from tidegate.engine import Engine, EngineState, Work
from tidegate.errors import DamageError, StorageFullError
from tidegate.evaluator import Evaluator
from tidegate.eventlog.contract import Entry, EntryKind, EventLog
from tidegate.events.dedupe import Dedupe, Seen
from tidegate.lookup import LoggedIds
from tidegate.outcome import Outcome
from tidegate.program import Program
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.tables import events_schema
from tidegate.testing.clock import ManualClock

SECOND = 1_000_000
MINUTE = 60 * SECOND
NOON = 1_686_139_200_000_000  # 2023-06-07 12:00, a Wednesday
SETTINGS = """
[stream]
id = "id"
event_time = "at"
allowed_lateness = "30 seconds"
dedupe_horizon = "10 seconds"
ahead_max = "1 hour"
[stream.columns]
id = "text"
at = "timestamp"
n = "bigint?"
"""
BY_MINUTE = "SELECT collect(id) AS ids FROM events GROUP BY TumblingWindow(minute, 1)"
COUNTED = "SELECT n, count(*) AS hits FROM events GROUP BY n, TUMBLE(at, INTERVAL '1 minute')"


def project(rules: str = "", settings: str = SETTINGS, **windows: str) -> dict[str, str]:
    """The files of a project; windows are given by name."""
    named = "".join(f'[[windows]]\nname = "{n}"\nsql = "{n}.sql"\n' for n in windows)
    files = {"tidegate.toml": settings + named, "rules.toml": rules}
    return files | {f"{n}.sql": sql for n, sql in windows.items()}


def rule(when: str, action: str = "review") -> str:
    return f'[[rule]]\nname = "r"\nwhen = "{when}"\naction = "{action}"\nreason = "n is {{n}}"\n'


def program(files: Mapping[str, str]) -> Program:
    return Program.compile(Project.from_files(files, root=Path("shop")))


FIRST = program(project(rule("n > 5"), by_minute=BY_MINUTE))
PROGRAMS = [
    FIRST,
    program(project(rule("n > 7", "block"), by_minute=f"-- same\n{BY_MINUTE}", counted=COUNTED)),
    program(project(rule("n * n > 50"), renamed=BY_MINUTE)),
    program(project(by_minute=BY_MINUTE.replace(", 1)", ", 2)"))),
    program(project(rule("n > 5"), SETTINGS.replace("bigint?", "text?").replace("30", "10"))
            | {"rules.toml": rule("n > '5'")}),
]  # fmt: skip


FEATURES = """
SELECT count(*) OVER by_n AS seen, sum(n) OVER by_n AS total FROM events
WINDOW by_n AS (PARTITION BY n ORDER BY at
  RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND CURRENT ROW),
by_id AS (PARTITION BY id ORDER BY at RANGE BETWEEN INTERVAL 2 MINUTES PRECEDING AND CURRENT ROW)
"""


def featured(features: str = FEATURES, rules: str = "", lateness: str = "20 seconds") -> Program:
    table = f'[features]\nsql = "features.sql"\nlateness = "{lateness}"\n'
    rules = rules or rule("seen > 1").replace("n is {n}", "seen {seen} times, {total} in all")
    files = project(rules, SETTINGS + table, by_minute=BY_MINUTE)
    return program(files | {"features.sql": features})


FEATURED = [
    FIRST,
    featured(),
    featured(rules=rule("total > 5")),  # the same features
    featured(FEATURES.replace("AS total", "AS total, count(*) OVER by_id AS again")),
    featured(FEATURES.replace("AS total", "AS total, max(seen) OVER by_id AS most")),  # in layers
    featured(lateness="2 minutes"),
    featured("SELECT n + 1 AS seen, n * n AS total FROM events"),
]


def event(name: str, seconds: float, n: object = 1) -> bytes:
    at = f"2023-06-07T12:{int(seconds) // 60:02d}:{seconds % 60:06.3f}"
    return f'{{"id":"{name}","at":"{at}","n":{n}}}'.encode()


class Pages:
    """The entries of a log, to be read back."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def read(self, offset: int, *, bytes_max: int) -> list[Entry]:
        found = [e for e in self.entries if e.first_offset <= offset < e.next_offset]
        if not found:
            raise ValueError(f"offset {offset} is not in the log")
        return found


Block = tuple[EntryKind, str, int, Sequence[bytes]]


def events(*records: bytes, at: int = NOON, source: str = "http") -> Block:
    return EntryKind.EVENTS, source, at, records


def switch(to: Program, *, at: int = NOON) -> Block:
    record = control(VersionRecord(version=to.version, files=dict(to.files)))[0]
    return EntryKind.CONTROL, "project", at, [record]


def passing(time: int, *, at: int = NOON) -> Block:
    return EntryKind.CONTROL, "idle", at, [control(TimeRecord(event_time=time))[0]]


def entries(blocks: Sequence[Block]) -> list[Entry]:
    made, offset = [], 0
    for kind, source, time, records in blocks:
        made.append(Entry(offset, kind, source, time, Records.of(records)))
        offset = made[-1].next_offset
    return made


Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Run:
    """An engine at work on a log that is there as a whole; its outcomes as plain rows."""

    folder: Path
    log: Sequence[Entry]
    program: Program = FIRST
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    rows: Rows = field(default_factory=lambda: defaultdict(list))
    kind: type[Dedupe] = Dedupe
    reached: int = 0

    def __post_init__(self) -> None:
        dedupe = self.kind.open(self.folder, table_ids=4, **self._how(self.program))
        self.engine = self._engine(self.program, dedupe)

    def _engine(self, made: Program, dedupe: Dedupe) -> Engine:
        key = bytes(range(16))
        return Engine(made, dedupe, clock=self.clock, history=self.history, key=key)

    def history(self, first: int, until: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The accepted events of a stretch, two at a time."""
        assert until <= self.reached
        kept = [r for r in self.rows["events"] if first <= r["log_offset"] < until]
        schema = events_schema(FIRST.schema)
        for at in range(0, len(kept), 2):
            batch = pa.RecordBatch.from_pylist(kept[at : at + 2], schema=schema)
            yield batch.select([*columns, "log_offset"])

    def _how(self, made: Program) -> dict[str, Any]:
        pages = cast("EventLog", Pages(self.log))
        return {
            "horizon": made.project.stream.dedupe_horizon_us,
            "key": bytes(16),
            "lookup": LoggedIds(pages, made.schema),
        }

    def take(self, work: Sequence[Work]) -> list[Outcome]:
        outcomes = []
        for outcome in self.engine.process(work):
            assert outcome.first_offset == self.reached
            self.reached = outcome.next_offset
            outcomes.append(outcome)
            self._note(outcome)
        assert self.engine.offset == self.reached
        return outcomes

    def _note(self, outcome: Outcome) -> None:
        for name, batch in outcome.tables().items():
            batch.validate(full=True)
            self.rows[name] += [
                {k: v for k, v in row.items() if k != "decided_at"} for row in batch.to_pylist()
            ]

    def restart(self) -> None:
        """Go on from a snapshot, as another process would."""
        state, features = self.engine.snapshot(), self.engine.copy_features()
        sections = [bytes(section) for section in features or ()]
        self.engine.dedupe.close()
        then = program(state.files)
        dedupe = Dedupe.restore(state.dedupe, self.folder, **self._how(then))
        self.engine = self._engine(then, dedupe)
        self.engine.restore(state, sections)


def outcome_of(folder: Path, *blocks: Block) -> Rows:
    """The tables that follow from a log, taken entry by entry."""
    run = Run(folder, entries(blocks))
    for entry in run.log:
        run.take([Work(entry)])
    run.engine.dedupe.close()
    return run.rows


def column(rows: Rows, table: str, name: str) -> list[Any]:
    return [row[name] for row in rows[table]]


# -- the law ---------------------------------------------------------------------------------------

RECORD = st.one_of(
    st.builds(event, st.sampled_from("abcdefghij"), st.integers(0, 300), st.integers(0, 9)),
    st.builds(event, st.uuids().map(str), st.integers(0, 300), st.just(2**62)),
    st.sampled_from([b"", b"{", b'{"id":"a"}', b'{"id":"z","at":"2030-01-01"}']),
)
BLOCK = st.one_of(
    st.builds(
        lambda records, wait, source: (EntryKind.EVENTS, source, wait, records),
        st.lists(RECORD, min_size=1, max_size=8),
        st.integers(-1, 6),
        st.sampled_from(["http", "file"]),
    ),
    st.builds(
        lambda records, wait, source: (EntryKind.EVENTS, source, wait, records),
        st.lists(RECORD, min_size=1, max_size=8),
        st.integers(-1, 6),
        st.sampled_from(["http", "file"]),
    ),
    st.builds(lambda to, wait: switch(to, at=wait), st.sampled_from(PROGRAMS), st.integers(0, 2)),
    st.builds(
        lambda s, wait: passing(NOON + s * SECOND, at=wait), st.integers(0, 400), st.integers(0, 2)
    ),
)


def timed(blocks: Sequence[Block]) -> list[Block]:
    """Ingest times instead of the seconds waited since the block before."""
    now, made = NOON, []
    for kind, source, wait, records in blocks:
        now += wait * SECOND
        made.append((kind, source, now, records))
    return made


def cut(blocks: Sequence[Block], chance: Any) -> list[Block]:
    """The same log in other entries: what came at one time from one source is cut anywhere."""
    made: list[Block] = []
    for kind, source, time, records in blocks:
        at = 0
        while at < len(records):
            end = chance.randint(at + 1, len(records))
            made.append((kind, source, time, records[at:end]))
            at = end
    return made


def decoded(item: Work, by: Program) -> Work:
    """What the door hands over, which may run another version than the engine has come to."""
    entry = item.entry
    if entry.kind is EntryKind.CONTROL:
        return item
    made = by.intake.admit(entry.records, ingest_time=entry.ingest_time)
    return replace(item, decoded=made, version=by.version)


@settings(max_examples=60)
@given(blocks=st.lists(BLOCK, min_size=1, max_size=14).map(timed), chance=st.randoms())
def test_tables_are_the_same_however_the_log_is_cut_decoded_and_resumed(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], chance: Any
) -> None:
    folder = tmp_path_factory.mktemp("law")
    plain = outcome_of(folder / "plain", *blocks)
    run = Run(folder / "cut", entries(cut(blocks, chance)))
    waiting = [Work(e) for e in run.log]
    while waiting:
        run.clock.advance(chance.randint(0, 10 * MINUTE))
        count = chance.randint(1, len(waiting))
        taken, waiting = waiting[:count], waiting[count:]
        doors = [None, None, *PROGRAMS]
        run.take([decoded(w, by) if (by := chance.choice(doors)) else w for w in taken])
        if chance.random() < 0.4:
            run.restart()
    run.engine.dedupe.close()
    assert {k: v for k, v in run.rows.items() if v} == {k: v for k, v in plain.items() if v}


@settings(max_examples=40)
@given(blocks=st.lists(BLOCK, min_size=1, max_size=10).map(timed))
def test_each_record_becomes_one_thing_and_each_event_has_one_decision(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]
) -> None:
    rows = outcome_of(tmp_path_factory.mktemp("whole"), *blocks)
    log = entries(blocks)
    parts = [column(rows, t, "log_offset") for t in ("events", "dead_letters", "duplicates")]
    sent = [
        o for e in log if e.kind is EntryKind.EVENTS for o in range(e.first_offset, e.next_offset)
    ]
    assert sorted(itertools.chain(*parts)) == sent
    assert all(part == sorted(part) for part in parts)
    assert column(rows, "decisions", "log_offset") == parts[0]
    assert column(rows, "decisions", "event_id") == column(rows, "events", "id")
    versions = _versions(log)
    assert column(rows, "decisions", "version") == [versions[o] for o in parts[0]]


def _versions(log: Sequence[Entry]) -> dict[int, str]:
    """The version in force at each offset, read off the log."""
    now, found = FIRST.version, {}
    for entry in log:
        for offset in range(entry.first_offset, entry.next_offset):
            record = entry.records[offset - entry.first_offset]
            if entry.kind is EntryKind.CONTROL and b'"version"' in record[:20]:
                now = next(p.version for p in PROGRAMS if p.version.encode() in record)
            found[offset] = now
    return found


# -- features --------------------------------------------------------------------------------------

FEATURED_BLOCK = st.one_of(
    st.builds(
        lambda records, wait: (EntryKind.EVENTS, "http", wait, records),
        st.lists(RECORD, min_size=1, max_size=8),
        st.integers(-1, 6),
    ),
    st.builds(lambda to, wait: switch(to, at=wait), st.sampled_from(FEATURED), st.integers(0, 2)),
    st.builds(
        lambda s, wait: passing(NOON + s * SECOND, at=wait), st.integers(0, 400), st.integers(0, 2)
    ),
)


@settings(max_examples=40)
@given(
    blocks=st.lists(FEATURED_BLOCK, min_size=1, max_size=14).map(timed),
    last=st.sampled_from(FEATURED[1:]),
    chance=st.randoms(),
)
def test_features_are_what_they_would_be_had_they_always_been_there(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], last: Program, chance: Any
) -> None:
    """However the log is cut, restarted and rebuilt: as one evaluator gives over all events."""
    folder = tmp_path_factory.mktemp("featured")
    final = [switch(last), events(event("x", 200, 3), event("y", 210, 3), event("z", 150, 3))]
    blocks = [*blocks, *((k, s, NOON + 20 * MINUTE, r) for k, s, _, r in final)]
    run = Run(folder / "cut", entries(cut(blocks, chance)))
    waiting = [Work(e) for e in run.log]
    while waiting:
        count = chance.randint(1, len(waiting))
        taken, waiting = waiting[:count], waiting[count:]
        run.take(taken)
        if chance.random() < 0.4:
            run.restart()
        if chance.random() < 0.4:
            prepare(run, chance.choice(FEATURED), chance)
    run.engine.dedupe.close()
    whole = Evaluator(last, key=bytes(16))
    batch = pa.RecordBatch.from_pylist(run.rows["events"], schema=events_schema(last.schema))
    verdict = whole.evaluate(batch, decided_at=0)
    assert verdict.featured is not None
    wanted = [r for r in verdict.featured.rows.to_pylist() if r["log_offset"] >= run.reached - 3]
    assert run.rows["features"][-3:] == wanted
    hits = [r["rules"] for r in verdict.decided.rows.to_pylist()[-3:]]
    assert column(run.rows, "decisions", "rules")[-3:] == hits


def prepare(run: Run, program: Program, chance: Any) -> None:
    """Rebuild beforehand up to somewhere, for a version that may never come."""
    rebuild = run.engine.rebuild(program)
    if rebuild.is_needed:
        for batch in run.history(0, chance.randint(0, run.reached), rebuild.columns):
            rebuild.follow(batch)
    run.engine.prepare(rebuild)


@settings(max_examples=30)
@given(blocks=st.lists(FEATURED_BLOCK, min_size=1, max_size=12).map(timed), chance=st.randoms())
def test_tables_with_features_are_the_same_however_the_log_is_cut(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], chance: Any
) -> None:
    folder = tmp_path_factory.mktemp("features")
    plain = outcome_of(folder / "plain", *blocks)
    run = Run(folder / "cut", entries(cut(blocks, chance)))
    waiting = [Work(e) for e in run.log]
    while waiting:
        count = chance.randint(1, len(waiting))
        taken, waiting = waiting[:count], waiting[count:]
        run.take(taken)
        if chance.random() < 0.3:
            run.restart()
    run.engine.dedupe.close()
    assert {k: v for k, v in run.rows.items() if v} == {k: v for k, v in plain.items() if v}


def test_each_event_has_a_row_of_features_under_a_version_that_has_any(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path,
        events(event("a", 1)),
        switch(FEATURED[1]),
        events(event("b", 2), b"{", event("b", 3), event("c", 4)),
        switch(FIRST),
        events(event("d", 5)),
    )
    assert [(r["event_id"], r["seen"], r["total"]) for r in rows["features"]] == [
        ("b", 2, 2), ("c", 3, 3),
    ]  # fmt: skip
    assert column(rows, "features", "log_offset") == [2, 5]
    assert [r[0]["reason"] for r in column(rows, "decisions", "rules")[1:3]] == [
        "seen 2 times, 2 in all", "seen 3 times, 3 in all",
    ]  # fmt: skip


def test_a_feature_that_cannot_be_computed_is_null_and_calls_for_a_review(tmp_path: Path) -> None:
    made = featured("SELECT n * n AS seen, 1 AS total FROM events")
    rows = outcome_of(tmp_path, switch(made), events(event("a", 1, 2**62)))
    assert column(rows, "features", "seen") == [None]
    ((hit,),) = column(rows, "decisions", "rules")
    assert column(rows, "decisions", "action") == ["review"]
    assert (hit["name"], hit["mode"]) == ("seen", "live")
    assert hit["reason"].startswith("feature `seen` could not be computed: integer overflow")


def test_the_passing_of_time_makes_no_event_too_late_for_its_features(tmp_path: Path) -> None:
    """Time that passes without events is not in the history, and so must not count."""
    rows = outcome_of(
        tmp_path,
        switch(FEATURED[1]),
        events(event("a", 1)),
        passing(NOON + 10 * MINUTE),
        events(event("b", 2)),
    )
    assert column(rows, "features", "seen") == [1, 2]


def test_an_engine_without_history_refuses_features_that_need_it(tmp_path: Path) -> None:
    log = entries([events(event("a", 1)), switch(FEATURED[1])])
    run = Run(tmp_path, log)
    run.engine._history = None
    with pytest.raises(ValueError, match="without history"):
        run.take([Work(e) for e in log])
    assert (run.engine.offset, run.engine.program) == (1, FIRST)


def test_a_state_without_its_features_is_damage(tmp_path: Path) -> None:
    run = Run(tmp_path, entries([switch(FEATURED[1]), events(event("a", 1))]))
    run.take([Work(e) for e in run.log])
    state = run.engine.snapshot()
    with pytest.raises(DamageError):
        run.engine.restore(state, [])
    with pytest.raises(DamageError, match="no state of the features"):
        run.engine.restore(msgspec.structs.replace(state, newest_of_events=None), [])


# -- versions --------------------------------------------------------------------------------------


def test_a_version_decides_exactly_from_its_offset_on(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path,
        events(event("a", 0, 6)),
        switch(PROGRAMS[1]),
        events(event("b", 0, 6), event("c", 0, 8)),
    )
    assert column(rows, "decisions", "action") == ["review", "approve", "block"]
    assert column(rows, "decisions", "version") == [FIRST.version] + [PROGRAMS[1].version] * 2


def test_what_the_door_decoded_by_an_older_version_is_decoded_again(tmp_path: Path) -> None:
    """The newer version has another type for a column: to use the old columns would be wrong."""
    texts = PROGRAMS[4]
    log = entries([switch(texts), events(event("a", 0, '"6"'), event("b", 0, 6))])
    run = Run(tmp_path, log)
    run.take([Work(log[0]), decoded(Work(log[1]), FIRST)])
    assert column(run.rows, "events", "n") == ["6"]
    assert column(run.rows, "dead_letters", "log_offset") == [2]


def test_what_the_door_decoded_by_the_same_version_is_used(tmp_path: Path) -> None:
    log = entries([events(event("a", 0))])
    other = FIRST.intake.admit(Records.of([event("b", 0)]), ingest_time=NOON)
    run = Run(tmp_path, log)
    run.take([Work(log[0], other, FIRST.version)])
    assert column(run.rows, "events", "id") == ["b"]


CLOSED = [event("y", 179), event("z", 300)]  # so late that the windows of the first minutes close


def test_a_window_query_that_means_the_same_keeps_its_rows(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path, events(event("a", 1)), switch(PROGRAMS[1]), events(event("b", 2), *CLOSED)
    )
    assert column(rows, "by_minute", "ids") == [["a", "b"], ["y"]]
    assert column(rows, "counted", "hits") == [1, 1]  # it is new, and saw `b` and `y` alone


def test_a_window_query_by_another_name_keeps_its_rows(tmp_path: Path) -> None:
    rows = outcome_of(tmp_path, events(event("a", 1)), switch(PROGRAMS[2]), events(*CLOSED))
    assert rows["by_minute"] == []
    assert column(rows, "renamed", "ids") == [["a"], ["y"]]


def test_a_window_query_that_means_something_else_begins_anew(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path, events(event("a", 1)), switch(PROGRAMS[3]), events(event("b", 2), event("z", 300))
    )
    assert column(rows, "by_minute", "ids") == [["b"]]


def test_a_new_window_query_counts_late_from_the_time_that_has_passed(tmp_path: Path) -> None:
    """At 12:05 less the lateness all windows to 12:04:30 are over, for a new query as well."""
    rows = outcome_of(
        tmp_path,
        events(event("a", 300)),
        switch(PROGRAMS[1]),
        events(event("b", 120.5), event("c", 299)),
    )
    late = [(r["window_query"], r["event_id"]) for r in rows["late_rows"]]
    assert late == [("by_minute", "b"), ("counted", "b")]


def test_a_longer_lateness_does_not_bring_back_closed_windows(tmp_path: Path) -> None:
    patient = program(
        project(settings=SETTINGS.replace("30 seconds", "10 minutes"), by_minute=BY_MINUTE)
    )
    rows = outcome_of(
        tmp_path,
        events(event("a", 1), event("b", 200)),
        switch(patient),
        events(event("c", 2)),
        passing(NOON + 30 * MINUTE),
    )
    assert column(rows, "by_minute", "ids") == [["a"], ["b"]]
    assert column(rows, "late_rows", "event_id") == ["c"]


def test_the_same_version_again_changes_nothing(tmp_path: Path) -> None:
    rows = outcome_of(tmp_path, events(event("a", 1)), switch(FIRST), events(*CLOSED))
    assert column(rows, "by_minute", "ids") == [["a"], ["y"]]


# -- time ------------------------------------------------------------------------------------------


def test_the_passing_of_time_closes_windows(tmp_path: Path) -> None:
    rows = outcome_of(tmp_path, events(event("a", 1)), passing(NOON + 95 * SECOND))
    assert column(rows, "by_minute", "ids") == [["a"]]
    assert column(rows, "by_minute", "log_offset") == [1]


def test_time_does_not_go_back(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path, events(event("a", 300)), passing(NOON), events(event("b", 1)), passing(NOON + 1)
    )
    assert column(rows, "late_rows", "event_id") == ["b"]
    assert rows["by_minute"] == []


def test_a_new_window_query_knows_how_far_time_had_come_before_it_went_back(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path,
        events(event("a", 300)),
        passing(NOON),
        switch(PROGRAMS[1]),
        events(event("b", 1)),
    )
    assert column(rows, "late_rows", "window_query") == ["by_minute", "counted"]


def test_an_event_that_closes_windows_is_not_kept_from_its_own(tmp_path: Path) -> None:
    rows = outcome_of(tmp_path, events(event("a", 1), event("b", 200), event("c", 500)))
    assert column(rows, "by_minute", "ids") == [["a"], ["b"]]
    assert column(rows, "by_minute", "log_offset") == [1, 2]


def test_an_event_from_the_future_moves_no_watermark(tmp_path: Path) -> None:
    ahead = b'{"id":"z","at":"2023-06-07T13:00:00.000001"}'
    rows = outcome_of(tmp_path, events(event("a", 1), ahead, event("b", 2)))
    assert column(rows, "dead_letters", "reason") == ["in_future"]
    assert rows["late_rows"] == []


def test_the_clock_is_told_in_the_decision_and_decides_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, entries([events(event("a", 0))]))
    run.clock.set(NOON + 5)
    (outcome,) = run.take([Work(run.log[0])])
    assert outcome.decisions["decided_at"].cast(pa.int64()).to_pylist() == [NOON + 5]


# -- duplicates ------------------------------------------------------------------------------------


def test_a_repeated_id_is_listed_with_its_first_and_changes_nothing(tmp_path: Path) -> None:
    rows = outcome_of(
        tmp_path,
        events(event("a", 1, 9), event("a", 290, 9)),
        events(event("a", 299), at=NOON + 10 * SECOND, source="file"),
        events(event("a", 2), at=NOON + 10 * SECOND + 1),
    )
    assert column(rows, "events", "log_offset") == [0, 3]
    repeated = [(r["log_offset"], r["first_offset"], r["source"]) for r in rows["duplicates"]]
    assert repeated == [(1, 0, "http"), (2, 0, "file")]
    assert rows["late_rows"] == []  # the repeated ones let no time pass


def test_a_dead_record_does_not_use_up_its_id(tmp_path: Path) -> None:
    rows = outcome_of(tmp_path, events(b'{"id":"a","at":"never"}', event("a", 1)))
    assert column(rows, "events", "log_offset") == [1]


def test_whole_numbers_as_ids_are_told_apart_and_found_again(tmp_path: Path) -> None:
    numbered = program(project(settings=SETTINGS.replace('id = "text"', 'id = "bigint"')))
    records = [event("0", 0).replace(b'"0"', n) for n in (b"7", b"-0", b"0", b"70", b"7")]
    log = entries([events(*records), events(*records)])
    run = Run(tmp_path, log, program=numbered)
    run.take([Work(log[0])])
    run.restart()
    run.take([Work(log[1])])
    assert column(run.rows, "events", "id") == [7, 0, 70]
    assert column(run.rows, "decisions", "event_id") == ["7", "0", "70"]
    assert column(run.rows, "duplicates", "first_offset") == [1, 0, 0, 1, 1, 3, 0]


NAMES = st.text(min_size=1, max_size=6) | st.sampled_from(
    ['"', "\\", "\n", "\u2028", "é", "e\u0301"]
)


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_ids_are_read_back_from_the_log_as_the_decoder_reads_them(names: list[str]) -> None:
    records = [
        json.dumps({"x": i, "id": name, "at": "2023-06-07"}, ensure_ascii=i % 2 == 0).encode(
            "utf-8", "surrogatepass"
        )
        for i, name in enumerate(names)
    ]
    taken = FIRST.intake.admit(Records.of(records), ingest_time=NOON)
    ids = LoggedIds(cast("EventLog", Pages(entries([events(*records)]))), FIRST.schema)
    assert ids(taken.rows.tolist()) == taken.events["id"].to_pylist()


# -- faults ----------------------------------------------------------------------------------------


def test_entries_must_go_on_where_the_engine_is(tmp_path: Path) -> None:
    log = entries([events(event("a", 0)), events(event("b", 0))])
    run = Run(tmp_path, log)
    with pytest.raises(ValueError, match="at offset 0, saw 1"):
        run.take([Work(log[1])])


class FullOnce(Dedupe):
    """An index that finds the disk full at its second update."""

    updates = 0

    def update(self, ids: Any, **rest: Any) -> Seen:
        self.updates += 1
        if self.updates == 2:
            raise StorageFullError("no room")
        return super().update(ids, **rest)


def test_after_a_full_disk_the_same_entries_give_the_same(tmp_path: Path) -> None:
    blocks = [events(event("a", 0)), switch(PROGRAMS[1]), events(event("a", 1), event("b", 200))]
    run = Run(tmp_path / "full", entries(blocks), kind=FullOnce)
    work = [Work(e) for e in run.log]
    with pytest.raises(StorageFullError):
        run.take(work)
    assert run.engine.offset == run.reached == 2
    run.take([w for w in work if w.entry.first_offset >= run.engine.offset])
    assert run.rows == outcome_of(tmp_path / "plain", *blocks)


@pytest.mark.parametrize("record", [b"", b"{}", b'{"type":"vers', b'{"type":"other"}', b"\xff"])
def test_a_control_record_that_is_none_is_damage(tmp_path: Path, record: bytes) -> None:
    log = entries([events(event("a", 0)), (EntryKind.CONTROL, "project", NOON, [record])])
    run = Run(tmp_path, log)
    with pytest.raises(DamageError, match="control record at offset 1") as error:
        run.take([Work(e) for e in log])
    assert error.value.offset == 1
    assert run.engine.offset == 1


def test_a_logged_version_that_does_not_compile_is_damage_and_changes_nothing(
    tmp_path: Path,
) -> None:
    broken = VersionRecord(version="x", files=project(rule("nope > 1")))
    log = entries([(EntryKind.CONTROL, "project", NOON, [control(broken)[0]])])
    run = Run(tmp_path, log)
    with pytest.raises(DamageError, match="`nope`") as error:
        run.take([Work(log[0])])
    assert error.value.offset == 0
    assert run.engine.program.version == FIRST.version


def test_each_control_record_of_an_entry_has_its_own_outcome(tmp_path: Path) -> None:
    """A version after the passing of time does not swallow the windows that time closed."""
    records = [passing(NOON + 95 * SECOND)[3][0], switch(PROGRAMS[2])[3][0]]
    log = entries([events(event("a", 1)), (EntryKind.CONTROL, "both", NOON, records)])
    run = Run(tmp_path, log)
    outcomes = run.take([Work(e) for e in log])
    assert [(o.first_offset, o.next_offset) for o in outcomes] == [(0, 1), (1, 2), (2, 3)]
    assert column(run.rows, "by_minute", "ids") == [["a"]]
    assert list(outcomes[2].windows) == ["renamed"]


# -- counters and state ----------------------------------------------------------------------------


def test_a_snapshot_says_what_it_stands_for(tmp_path: Path) -> None:
    log = entries([events(event("a", 60), event("b", 30), at=NOON + 7), switch(PROGRAMS[1])])
    run = Run(tmp_path, log)
    run.take([Work(e) for e in log])
    state: EngineState = run.engine.snapshot()
    assert (state.offset, state.newest_event_time) == (3, NOON + MINUTE)
    assert state.newest_ingest_time == NOON + 7
    assert (state.version, state.files) == (PROGRAMS[1].version, PROGRAMS[1].files)
    assert sorted(state.windows) == ["by_minute", "counted"]


def test_counters_add_up_what_came_out(tmp_path: Path) -> None:
    log = entries([
        events(event("a", 1, 9), b"x", b"{}", event("a", 1)),
        events(event("a", 2), event("b", 300), event("c", 1), source="file"),
    ])  # fmt: skip
    counters = Counters()
    counters.add(Run(tmp_path, log).take([Work(e) for e in log]))
    assert (counters.events, counters.late) == (3, 1)
    assert counters.decisions == {"review": 1, "approve": 2}
    assert counters.dead == {"not_json": 1, "missing_column": 1}
    assert counters.duplicates == {"http": 1, "file": 1}
    assert counters.window_rows == {"by_minute": 1}
