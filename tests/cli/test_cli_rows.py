"""Tables in terminals of any width."""

import io

from rich.console import Console

from tidegate.cli.rows import print_table

ID = "2a3fda24-1c6b-4b93-8a8a-cc97097ec08a"


def printed(width: int, names: list[str], rows: list[list[object]]) -> list[str]:
    text = io.StringIO()
    print_table(names, rows, console=Console(file=text, width=width))
    return text.getvalue().splitlines()


def test_numbers_stand_on_the_right_and_text_on_the_left() -> None:
    lines = printed(80, ["name", "n"], [["a", 5], ["bb", 12_345]])
    assert lines == ["name      n", "a         5", "bb    12345"]


def test_long_text_is_broken_so_that_ids_are_not() -> None:
    reason = "Discount of 60 % with priority shipping at store 7, paid in haste"
    lines = printed(80, ["id", "reason"], [[ID, reason]])
    assert lines[1].startswith(ID)
    assert len(lines) > 2
    assert "".join(line[38:] for line in lines[1:]).replace(" ", "") == reason.replace(" ", "")


def test_rows_too_wide_for_the_terminal_become_blocks() -> None:
    lines = printed(60, ["id", "again"], [[ID, ID], [ID, None]])
    assert lines[:3] == ["row 1", f"  id     {ID}", f"  again  {ID}"]
    assert lines[-1] == "  again  ∅"


def test_a_table_without_rows_has_its_names() -> None:
    assert printed(60, ["a", "b"], []) == ["a  b"]
