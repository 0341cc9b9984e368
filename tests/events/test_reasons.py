"""The reasons of dead letters and the page that lists them."""

from __future__ import annotations

from pathlib import Path

from tidegate.events.reasons import DeadReason

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_the_page_lists_every_reason_with_its_sentence_in_order() -> None:
    table = "\n".join(f"| `{reason}` | {reason.sentence} |" for reason in DeadReason)
    assert f"| reason | meaning |\n|---|---|\n{table}\n\n" in PAGE.read_text(encoding="utf-8")


def test_every_reason_is_one_sentence() -> None:
    for reason in DeadReason:
        assert reason.sentence.endswith(".")
        assert reason.sentence[0].isupper()
