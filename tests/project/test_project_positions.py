"""Places in TOML: of keys, of values, and of each character inside a text."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.project import Project
from tidegate.project.document import Document
from tidegate.project.places import places
from tidegate.sql.source import SourceText

STRINGS = {
    "basic": ('when = "a > é AND bad"', (1, 19)),
    "literal": ("when = 'a > 1 AND bad'", (1, 19)),
    "basic with escapes": ('when = "\\u0061 > \\"b\\" AND bad"', (1, 28)),
    "long escape": ('when = "\\U0001F600 bad"', (1, 20)),
    "multi-line basic": ('when = """\na > 1\n  AND bad"""', (3, 7)),
    "multi-line basic on the first line": ('when = """a > 1\n  AND bad"""', (2, 7)),
    "multi-line basic without a line end": ('when = """a AND bad"""', (1, 17)),
    "multi-line literal": ("when = '''\na > 'x'\n  AND bad'''", (3, 7)),
    "line continued": ('when = """a \\\n\n     AND \\t bad"""', (3, 13)),
    "quotes at the end": ('when = """"x" = bad"" """', (1, 17)),
    "blank around the equals sign": ("when   =\t'bad'", (1, 11)),
    "quoted key": ("'when'='bad'", (1, 9)),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_a_mistake_in_a_condition_is_pointed_at_to_the_column(kind: str) -> None:
    written, place = STRINGS[kind]
    source = Document(written, file="rules.toml").source(("when",))
    problem = source.problem(source.text.index("bad"), "no column `bad`")
    assert (problem.line, problem.column) == place
    assert problem.text == written.split("\n")[place[0] - 1]
    assert problem.text[problem.column - 1 :].startswith("bad")


@pytest.mark.parametrize("kind", STRINGS)
def test_a_part_of_a_condition_still_knows_its_place(kind: str) -> None:
    written, place = STRINGS[kind]
    source = Document(written, file="rules.toml").source(("when",))
    begin = source.text.index("bad")
    part = source.slice(begin, begin + 3)
    assert part.text == "bad"
    assert (part.problem(0, "x").line, part.problem(0, "x").column) == place
    assert part.problem(3, "x").column == place[1] + 3


def test_the_end_of_a_condition_is_the_place_after_its_last_character() -> None:
    source = Document('when = "a >"', file="rules.toml").source(("when",))
    assert source.problem(3, "more expected").column == 12


def test_rules_carry_the_place_of_their_condition_and_reason() -> None:
    rules = '\n[[rule]]\nname = "r"\naction = "block"\nwhen = "x"\nreason = \'because\'\n'
    columns = 'columns = { id = "text", at = "timestamp" }'
    stream = f'[stream]\nid = "id"\nevent_time = "at"\n{columns}'
    project = Project.from_files({"tidegate.toml": stream, "rules.toml": rules}, root=Path())
    [rule] = project.rules
    assert isinstance(rule.when, SourceText)
    assert (rule.when.file, rule.when.line, rule.when.column) == ("rules.toml", 5, 9)
    assert (rule.reason.text, rule.reason.line, rule.reason.column) == ("because", 6, 11)


def test_a_query_file_carries_its_own_name_and_lines() -> None:
    columns = 'columns = { id = "text", at = "timestamp" }'
    text = f'[stream]\nid = "id"\nevent_time = "at"\n{columns}\n[[windows]]\nname="w"\nsql="w.sql"'
    files = {"tidegate.toml": text, "w.sql": "SELECT\r\n  bad"}
    sql = Project.from_files(files, root=Path()).windows[0].sql
    problem = sql.problem(sql.text.index("bad"), "no column")
    assert str(problem) == "w.sql:2:3: no column\n      bad\n      ^"


PATHS = """\
top = 1
[a.'b c']        # a header
"d\\u0065f" . x = { y = [ 1, { z = "q" } ], w = 2020-01-01 10:00:00 }
[[list]]
k = [
  "one", # "not" [this]
  'two',
]
[list.sub]
v = true
[[list]]
k = []
[list.sub]
v = +1.5e3
"""


def test_places_are_found_in_all_kinds_of_tables() -> None:
    document = Document(PATHS, file="x")

    def place(*path: str | int) -> tuple[int, int]:
        problem = document.problem(path, "here")
        return problem.line, problem.column

    assert place("top") == (1, 7)
    assert place("a", "b c", "def", "x", "y", 1, "z") == (3, 35)
    assert place("a", "b c", "def", "x", "w") == (3, 48)
    assert place("list", 0, "k", 1) == (7, 3)
    assert place("list", 0, "sub", "v") == (10, 5)
    assert place("list", 1, "sub", "v") == (14, 5)
    assert document.problem(("a", "b c"), "key", at_key=True).column == 4


def test_what_is_not_written_is_shown_at_the_table_around_it() -> None:
    problem = Document(PATHS, file="x").problem(("list", 1, "missing"), "here")
    assert (problem.line, problem.column) == (11, 3)


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], Any]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for step, child in inner:
        found[(*path, step)] = child
        if isinstance(child, dict | list):
            found |= paths_of(child, (*path, step))
    return found


def basic(text: str) -> str:
    """A text as a basic string, with the escapes that it needs."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


keys = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)
scalars = st.one_of(
    st.integers(-9, 99).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    keys.map(basic),
    st.from_regex(r"'[^'\x00-\x1f\x7f\ud800-\udfff]{0,5}'", fullmatch=True),
    st.from_regex(r"'''[a-z \n]{0,9}'{0,2}'''", fullmatch=True),
    st.from_regex(r'"""[a-z \n]{0,5}(\\\n  |\\n|\\")?[a-z "]{0,2}x"{0,2}"""', fullmatch=True),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: "[ " + ", # c, ]\n".join(v) + "]"),
        st.dictionaries(keys, inner.filter(lambda v: "\n" not in v), max_size=3).map(
            lambda d: "{" + ", ".join(f"{basic(k)} = {v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(keys, values, max_size=4), st.lists(st.dictionaries(keys, values, max_size=2))
)
def test_every_value_of_any_document_has_its_place(
    top: dict[str, str], tables: list[dict[str, str]]
) -> None:
    pairs = ["".join(f"{basic(k)} = {v}\n" for k, v in table.items()) for table in (top, *tables)]
    text = "[top.x]\n" + "\n[[many.y]] # [no]\n".join(pairs)
    found = places(text)
    expected = paths_of(tomllib.loads(text))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if isinstance(value, str):
            _check_characters(text, found[path].origins, value)


def _check_characters(text: str, origins: tuple[int, ...], value: str) -> None:
    assert len(origins) == len(value) + 1
    for character, origin in zip(value, origins, strict=False):
        assert text[origin] in (character, "\\")
