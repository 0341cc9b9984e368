"""Control records: what they say survives the log and lands in its tables."""

import json

import pyarrow as pa
import pytest

from tidegate.controls import (
    AnswerRecord,
    AuditRecord,
    ControlRecord,
    LabelRecord,
    ListRecord,
    ProposalRecord,
    TimeRecord,
    VersionRecord,
    control,
    control_record,
    control_rows,
)
from tidegate.errors import DamageError
from tidegate.tables import CONTROL_TABLES

NOON = 1_700_000_000_000_000
VERSION = VersionRecord("abc", {"tidegate.toml": "[stream]"}, "publish", "ann", "less noise", "abc")
ADDED = ListRecord("blocked_cards", "add", ("4711", "4712"), NOON + 5, "stolen", "ann")
LABEL = LabelRecord("p1", "fraud", "chargeback", NOON + 7, event_offset=3, event={"card": "4711"})
ANSWER = AnswerRecord("p2", 9, "review", "no decision within 50 ms", NOON + 8)
KEY = AuditRecord("key.add", "tg_1234", "ann", {"scopes": ["score"]})
ALL: list[ControlRecord] = [
    *(VERSION, ProposalRecord("abc", {}, "publish", "ann", "", "abc"), TimeRecord(NOON)),
    *(ADDED, LABEL, ANSWER, KEY),
]


def rows(*records: ControlRecord) -> dict[str, list[dict[str, object]]]:
    found = control_rows(records, first_offset=100, at=NOON)
    assert all(batch.schema == CONTROL_TABLES[name] for name, batch in found.items())
    return {name: batch.to_pylist() for name, batch in found.items()}


@pytest.mark.parametrize("record", ALL, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_from_the_log_as_it_was(record: ControlRecord) -> None:
    assert control_record(control(record)[0], offset=0) == record


def test_versions_of_logs_from_before_are_read() -> None:
    old = b'{"type":"version","version":"abc","files":{}}'
    assert control_record(old, offset=0) == VersionRecord("abc", {})


def test_what_is_no_control_record_is_named_with_its_offset() -> None:
    with pytest.raises(DamageError, match="control record at offset 12"):
        control_record(b'{"type":"nonsense"}', offset=12)


def test_a_change_of_a_list_is_a_row_for_each_value_and_one_for_the_audit() -> None:
    found = rows(KEY, ADDED)
    assert [(r["value"], r["log_offset"]) for r in found["list_changes"]] == [
        ("4711", 101),
        ("4712", 101),
    ]
    assert [(r["action"], r["subject"], r["log_offset"]) for r in found["audit"]] == [
        ("key.add", "tg_1234", 100),
        ("list.add", "blocked_cards", 101),
    ]


def test_labels_answers_and_versions_have_tables_of_their_own() -> None:
    found = rows(LABEL, ANSWER, VERSION)
    known_at = pa.scalar(NOON + 7, pa.timestamp("us")).as_py()
    (label,) = found["labels"]
    assert (label["event_id"], label["label"], label["known_at"]) == ("p1", "fraud", known_at)
    assert found["answers"][0]["event_offset"] == 9
    (version,) = found["versions"]
    assert json.loads(str(version["files"])) == VERSION.files
    assert (version["author"], version["message"]) == ("ann", "less noise")


def test_what_only_steers_leaves_no_row() -> None:
    assert rows(TimeRecord(NOON), ALL[1]) == {}
