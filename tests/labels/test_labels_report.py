"""Labels as they come in: what is read, and what each mistake is called."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidegate.labels.report import EVENT_ID_BYTES_MAX, LabelReader, Mistake, Reading
from tidegate.records import Records

NOW = 1_700_000_000_000_000
READER = LabelReader()


def read(*given: Any) -> Reading:
    raw = [g if isinstance(g, bytes) else msgspec.json.encode(g) for g in given]
    return READER.read(Records.of(raw), source="bank", now=NOW, author="ann")


def mistake(given: Any) -> Mistake:
    reading = read(given)
    assert not reading.labels
    (found,) = reading.mistakes
    return found


@pytest.mark.parametrize(
    ("written", "label"),
    [
        *((w, "fraud") for w in ("fraud", "Fraud", True, 1, "true", "1")),
        *((w, "legitimate") for w in ("legitimate", False, 0, "FALSE", "0")),
    ],
)
def test_a_label_may_be_written_as_a_word_a_truth_or_a_number(written: Any, label: str) -> None:
    (found,) = read({"event_id": "p1", "label": written}).labels
    assert (found.event_id, found.label, found.author) == ("p1", label, "ann")


def test_what_is_not_told_has_the_source_and_time_of_the_request() -> None:
    told = {"source": "chargeback", "known_at": "2023-11-14T22:13:20Z"}
    full, bare = read(
        {"event_id": "p1", "label": True, **told}, {"event_id": 17, "label": False}
    ).labels
    assert (full.source, full.known_at) == ("chargeback", NOW)
    assert (bare.event_id, bare.source, bare.known_at) == ("17", "bank", NOW)
    assert (full.event_offset, full.event) == (None, None)


@pytest.mark.parametrize(
    ("given", "reason", "field", "message"),
    [
        (b"{", "not_json", None, "unexpected end"),
        (b"[1]", "not_object", None, "expected a JSON object"),
        ({"label": "fraud"}, "missing_column", "event_id", "field `event_id`"),
        ({"event_id": "a"}, "missing_column", "label", "field `label`"),
        ({"event_id": "a", "label": "odd"}, "wrong_type", "label", 'saw text "odd"'),
        ({"event_id": "a", "label": 2}, "wrong_type", "label", "saw number 2"),
        ({"event_id": "a", "label": 1.0}, "wrong_type", "label", "saw number 1.0"),
        ({"event_id": "a", "label": [1]}, "wrong_type", "label", "saw array [1]"),
        ({"event_id": True, "label": 1}, "wrong_type", "event_id", "saw boolean true"),
        ({"event_id": "", "label": 1}, "wrong_type", "event_id", 'saw text ""'),
        (
            {"event_id": "é" * EVENT_ID_BYTES_MAX, "label": 1},
            "wrong_type",
            "event_id",
            f"at most {EVENT_ID_BYTES_MAX} bytes",
        ),
        ({"event_id": "a", "label": 1, "source": 5}, "wrong_type", "source", "expected text"),
        ({"event_id": "a", "label": 1, "source": "x" * 201}, "too_long", "source", "200"),
        ({"event_id": "a", "label": 1, "known_at": "soon"}, "bad_time", "known_at", "soon"),
        (
            {"event_id": "a", "label": 1, "known_at": "2023-11-16T22:13:20Z"},
            "in_future",
            "known_at",
            "more than a day in the future",
        ),
        ({"event_id": "a", "label": 1, "sauce": "x"}, "unknown_field", "sauce", "`source`"),
        ({"event_id": "a" * 20_000, "label": 1}, "too_long", None, "20"),
    ],
)
def test_a_mistake_names_what_is_wrong(
    given: Any, reason: str, field: str | None, message: str
) -> None:
    found = mistake(given)
    assert (found.reason, found.field) == (reason, field)
    assert message in found.message


def test_mistakes_have_the_place_of_their_item_and_spoil_no_other() -> None:
    good = {"event_id": "a", "label": 1}
    reading = read(good, b"nonsense", good, {"event_id": "b", "label": 7}, b"{}", good)
    assert len(reading.labels) == 3
    assert [m.index for m in reading.mistakes] == [1, 3, 4]
