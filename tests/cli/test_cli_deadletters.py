"""Dead letters: counted, shown, and sent again once the project is mended."""

import re
from pathlib import Path

import tidegate

from .command import Run

RECORDS = [
    b'{"id": "a", "event_type": "sale_event", "ts": "2023-06-06T20:00:00Z", "qty": 3}',
    b'{"id": "b", "ts": "2023-06-06T20:00:01Z", "qty": 4}',
    b'{"id": "c", "ts": "2023-06-06T20:00:02Z", "qty": 5}',
    b'{"id": "d", "event_type": "sale_event", "ts": "2023-06-06T20:00:03Z", "qty": "many"}',
    b"\x1b[31mnot json\xff :bug:",
]


def ingested(shop: Path) -> None:
    (shop / "day.ndjson").write_bytes(b"\n".join(RECORDS))
    taken = tidegate.open(shop).ingest([shop / "day.ndjson"])
    assert (taken.records, taken.events, taken.dead_letters) == (5, 1, 4)


def mend(shop: Path) -> None:
    """An event may lack its type from now on."""
    file = shop / "tidegate.toml"
    file.write_text(file.read_text().replace('event_type = "text"', 'event_type = "text?"'))


def listed(run: Run, shop: Path) -> dict[str, int]:
    lines = run("deadletters", shop).text.splitlines()[1:]
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def test_they_are_counted_by_reason(run: Run, empty: Path) -> None:
    ingested(empty)
    assert listed(run, empty) == {"missing_column": 2, "wrong_type": 1, "not_utf8": 1}


def test_they_are_shown_with_their_bytes_made_harmless(run: Run, empty: Path) -> None:
    ingested(empty)
    shown = run("deadletters", empty, "show")
    assert shown.code == 0
    assert RECORDS[1].decode() in shown.text
    assert "\\x1b[31mnot json\\xff :bug:" in shown.text
    assert b"\x1b" not in shown.out


def test_they_are_shown_by_reason_and_up_to_a_limit(run: Run, empty: Path) -> None:
    ingested(empty)
    shown = run("deadletters", empty, "show", "--reason", "missing_column", "--limit", 1).text
    assert re.findall(r"^id \d+  (\w+)", shown, re.MULTILINE) == ["missing_column"]
    assert "1 more" in shown


def test_after_a_fix_they_become_events_and_are_no_longer_listed(run: Run, empty: Path) -> None:
    ingested(empty)
    mend(empty)
    sent = run("deadletters", empty, "resend", "--reason", "missing_column")
    assert sent.text == "2 records sent again: 2 events, 0 dead letters, 0 duplicates\n"
    rows = run("query", empty, "SELECT id, qty FROM events ORDER BY id", "--format", "csv").text
    assert rows == "id,qty\na,3\nb,4\nc,5\n"
    assert listed(run, empty) == {"wrong_type": 1, "not_utf8": 1}
    again = run("deadletters", empty, "resend", "--reason", "missing_column")
    assert again.text.startswith("0 records sent again")
    assert run("reconcile", empty).code == 0


def test_one_by_its_id(run: Run, empty: Path) -> None:
    ingested(empty)
    mend(empty)
    shown = run("deadletters", empty, "show", "--reason", "missing_column").text
    first = re.findall(r"^id (\d+)", shown, re.MULTILINE)[0]
    sent = run("deadletters", empty, "resend", "--id", first)
    assert sent.text.startswith("1 records sent again: 1 events")
    refused = run("deadletters", empty, "resend", "--id", first)
    assert refused.code == 1
    assert refused.err == f"error: no dead letter waits under id {first}\n"


def test_what_is_refused_again_is_listed_once(run: Run, empty: Path) -> None:
    ingested(empty)
    assert "0 events, 4 dead letters" in run("deadletters", empty, "resend").text
    assert sum(listed(run, empty).values()) == 4
