"""The page of the command line says what the commands say."""

from pathlib import Path

from tidegate.cli.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_up_to_date() -> None:
    hint = "run `python -m tidegate.cli.reference > docs/cli.md`"
    assert PAGE.read_text() == page(), hint
