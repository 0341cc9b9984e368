"""The intake refuses events from the future, by the time at which they came in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.events.decode import DeadReason, Decoded, Decoder
from tidegate.events.intake import Intake
from tidegate.records import Records
from tidegate.schema import Schema

SCHEMA = Schema.of(
    [("id", "text"), ("at", "timestamp"), ("n", "bigint?")], id="id", event_time="at"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = 1_686_081_600_000_000  # 2023-06-06 20:00
HOUR = 3_600_000_000
DECODER = Decoder(SCHEMA, record_bytes_max=1000)


def event(name: str, time: int) -> bytes:
    at = (EPOCH + timedelta(microseconds=time)).isoformat()
    return f'{{"id":"{name}","at":"{at}","more":1}}'.encode()


def admitted(*records: bytes, now: int = NOW, ahead_max: int = HOUR) -> Decoded:
    return Intake(SCHEMA, DECODER, ahead_max).admit(Records.of(records), ingest_time=now)


def ids(decoded: Decoded) -> list[str]:
    return [str(name) for name in decoded.events["id"].to_pylist()]


@pytest.mark.parametrize(("ahead", "is_taken"), [(HOUR - 1, True), (HOUR, True), (HOUR + 1, False)])
def test_the_bound_itself_is_taken_and_a_microsecond_more_is_not(
    ahead: int, is_taken: bool
) -> None:
    decoded = admitted(event("a", NOW + ahead))
    assert ids(decoded) == (["a"] if is_taken else [])
    assert [d.reason for d in decoded.dead] == ([] if is_taken else [DeadReason.IN_FUTURE])


def test_it_is_judged_by_the_time_of_arrival() -> None:
    record = event("a", NOW + 2 * HOUR)
    assert ids(admitted(record)) == []
    assert ids(admitted(record, now=NOW + HOUR)) == ["a"]


def test_the_past_is_always_taken() -> None:
    assert ids(admitted(event("a", -62_000_000_000_000_000))) == ["a"]


def test_the_reason_names_the_column_and_what_was_seen() -> None:
    (dead,) = admitted(event("a", NOW + 24 * HOUR)).dead
    assert (dead.column, dead.row) == ("at", 0)
    assert "2023-06-07T20:00:00" in dead.message


def test_the_last_year_of_all_can_be_told() -> None:
    (dead,) = admitted(b'{"id":"a","at":"9999-12-31T23:59:59.999999"}').dead
    assert "9999-12-31T23:59:59.999999" in dead.message


def test_dead_records_of_both_kinds_are_in_order() -> None:
    future = event("f", NOW + 2 * HOUR)
    decoded = admitted(b"x", future, event("a", NOW), future, b"y", event("b", NOW), future)
    assert ids(decoded) == ["a", "b"]
    assert decoded.rows.tolist() == [2, 5]
    assert [(d.row, d.reason) for d in decoded.dead] == [
        (0, DeadReason.NOT_JSON),
        (1, DeadReason.IN_FUTURE),
        (3, DeadReason.IN_FUTURE),
        (4, DeadReason.NOT_JSON),
        (6, DeadReason.IN_FUTURE),
    ]


def test_records_that_are_all_from_the_future_leave_no_event() -> None:
    decoded = admitted(*[event(str(n), NOW + 2 * HOUR) for n in range(3)])
    assert decoded.events.num_rows == len(decoded.rows) == 0
    assert decoded.events.schema == DECODER.decode(Records.of([])).events.schema


def test_no_records_are_nothing() -> None:
    assert ids(admitted()) == []


RECORD = st.one_of(
    st.builds(
        event, st.text("ab", min_size=1, max_size=2), st.integers(NOW - HOUR, NOW + 3 * HOUR)
    ),
    st.sampled_from([b"", b"{}", b'{"id":"a","at":"never"}']),
)


@given(st.lists(RECORD, max_size=12))
def test_nothing_else_is_changed(records: list[bytes]) -> None:
    """Each record is taken, dead as the decoder says, or from the future; one of them exactly."""
    plain, decoded = DECODER.decode(Records.of(records)), admitted(*records)
    assert sorted([*decoded.rows.tolist(), *(d.row for d in decoded.dead)]) == list(
        range(len(records))
    )
    future = [d for d in decoded.dead if d.reason is DeadReason.IN_FUTURE]
    assert [d for d in decoded.dead if d not in future] == list(plain.dead)
    taken = set(decoded.rows.tolist())
    rows = zip(plain.rows.tolist(), plain.events.to_pylist(), strict=True)
    assert decoded.events.to_pylist() == [event for row, event in rows if row in taken]
    times = dict(zip(plain.rows.tolist(), plain.events["at"].to_pylist(), strict=True))
    bound = EPOCH.replace(tzinfo=None) + timedelta(microseconds=NOW + HOUR)
    assert {d.row for d in future} == {row for row, time in times.items() if time > bound}
