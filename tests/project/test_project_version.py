"""Versions: what changes them and what does not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.project import Project, version
from tidegate.project.tokens import tokens

SETTINGS = """
[stream]
id = "id"
event_time = "at"
columns = { id = "text", at = "timestamp", n = "bigint?" }
[[windows]]
name = "w"
sql = "w.sql"
"""
RULES = """
[[rule]]
name = "r"
when = "n > 1 AND id <> 'a  b'"
action = "review"
reason = "n is {n}"
"""
QUERY = "SELECT count(*) AS n FROM events GROUP BY TUMBLE(at, INTERVAL '5 minutes')\n"


def version_of(settings: str = SETTINGS, rules: str = RULES, query: str = QUERY) -> str:
    files = {"tidegate.toml": settings, "rules.toml": rules, "w.sql": query}
    return version(Project.from_files(files, root=Path()))


def test_a_version_is_twelve_hexadecimal_digits_and_stays_what_it_was() -> None:
    assert version_of() == "e6a976602203"


FEATURES = "SELECT count(*) OVER w AS n_1h FROM events"
WITH_FEATURES = SETTINGS + '[features]\nsql = "f.sql"\n'


def version_with(settings: str = WITH_FEATURES, features: str = FEATURES) -> str:
    files = {"tidegate.toml": settings, "rules.toml": RULES, "w.sql": QUERY, "f.sql": features}
    return version(Project.from_files(files, root=Path()))


def test_features_are_part_of_the_version_by_what_they_say() -> None:
    assert version_with() != version_of()
    assert version_with(features=f"-- the same\n{FEATURES} ") == version_with()
    assert version_with(features=FEATURES.replace("n_1h", "n")) != version_with()


@pytest.mark.parametrize("setting", ['lateness = "2 days"', 'look_back = "10 days"'])
def test_how_far_features_look_is_part_of_the_version(setting: str) -> None:
    assert version_with(f"{WITH_FEATURES}{setting}\n") != version_with()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"bigint?"', '"bigint"'),
        ("n = ", "m = "),
        ("[[windows]]", 'allowed_lateness = "1 minute"\n[[windows]]'),
        ("[[windows]]", 'epoch_unit = "ms"\n[[windows]]'),
        ("[[windows]]", 'dedupe_horizon = "1 day"\n[[windows]]'),
        ("[[windows]]", 'idle_after = "1 day"\n[[windows]]'),
        ("[[windows]]", 'record_bytes_max = "1 KiB"\n[[windows]]'),
        ("[[windows]]", 'ahead_max = "2 days"\n[[windows]]'),
        ('name = "w"', 'name = "v"'),
        ('name = "w"', 'name = "w"\nallowed_lateness = "1 minute"'),
    ],
)
def test_stream_and_windows_change_the_version(old: str, new: str) -> None:
    assert version_of(settings=SETTINGS.replace(old, new, 1)) != version_of()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "r"', 'name = "s"'),
        ("n > 1", "n > 2"),
        ("'a  b'", "'a b'"),
        ("review", "block"),
        ("n is", "n  is"),
        ('reason = "', 'mode = "shadow"\nreason = "'),
    ],
)
def test_rules_change_the_version(old: str, new: str) -> None:
    assert version_of(rules=RULES.replace(old, new)) != version_of()


def test_the_order_of_rules_changes_the_version() -> None:
    other = RULES.replace('"r"', '"s"')
    assert version_of(rules=RULES + other) != version_of(rules=other + RULES)


def test_queries_change_the_version() -> None:
    assert version_of(query=QUERY.replace("5", "6")) != version_of()


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS + '[service]\nport = 1\n[log]\nkeep = "1 day"\n[warehouse]\ncommit_rows = 5\n',
        SETTINGS
        + '[sinks.s]\ntype = "objects"\nfrom = "w"\nurl = "u"\nformat = "json"\npath = "p"',
        "# a comment\n" + SETTINGS.replace(" = ", "   =   "),
        SETTINGS.replace(
            "[[windows]]", 'allowed_lateness = "0 s"\nepoch_unit = "none"\n[[windows]]'
        ),
    ],
)
def test_doors_sinks_and_layout_leave_the_version_alone(settings: str) -> None:
    assert version_of(settings=settings) == version_of()


def test_layout_and_comments_of_sql_leave_the_version_alone() -> None:
    query = (
        "-- why\nSELECT  count(*)/* all */AS n\r\nFROM events\nGROUP BY "
        + QUERY.partition(" BY ")[2]
    )
    assert version_of(query=query) == version_of()


def test_layout_of_a_condition_leaves_the_version_alone() -> None:
    rules = RULES.replace('"n > 1 AND', '"""\nn>1\n  AND').replace("b'\"", 'b\' -- why\n"""')
    assert version_of(rules=rules) == version_of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a - -b", "a --b"),
        ("'a -- b'", "'a'"),
        ('"a  b"', '"a b"'),
        ("[a  b]", "[a b]"),
        ("a < @b", "a <@ b"),
        ("ab", "a b"),
        ("1 .5", "1.5"),
        ("'it''s  x'", "'it''s x'"),
        ("e'\\'  x'", "e'\\' x'"),
        ("$$a  b$$", "$$a b$$"),
        ("$t$ -- x$t$", "$t$ $t$"),
        ("'a' 'b'", "'a''b'"),
        ("A", "a"),
    ],
)
def test_texts_of_different_meaning_have_different_tokens(one: str, other: str) -> None:
    assert tokens(one) != tokens(other)


@given(st.text(st.sampled_from("ab1'\"[]$-/* \n<>=.,()"), max_size=20))
def test_tokens_leave_out_nothing_but_blanks_and_comments(sql: str) -> None:
    rest = sql
    for token in tokens(sql):
        before, found, rest = rest.partition(token)
        assert found
        assert not before.strip() or before.lstrip().startswith(("--", "/*"))


def test_what_labels_change_is_part_of_the_version() -> None:
    """So that features are rebuilt when the column is named, and no older version changes."""
    assert version_of(f"{SETTINGS}[labels]\n") == version_of()
    column = version_of(f'{SETTINGS}[labels]\ncolumn = "n"\n')
    fewer = version_of(f"{SETTINGS}[labels]\nwaiting_max = 5\n")
    assert len({version_of(), column, fewer}) == 3
