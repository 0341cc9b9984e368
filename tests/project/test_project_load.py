"""A project that is as it should be, and what never leaves `load` whatever is written."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.errors import Problem, ProjectError
from tidegate.project import ObjectsSink, Project, load
from tidegate.project.reference import TABLES
from tidegate.project.setting import settings_of

STORE = Path(__file__).parents[2] / "examples" / "store"
MINIMAL = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
"""


def project(text: str = "", **files: str) -> Project:
    return Project.from_files({"tidegate.toml": MINIMAL + text, **files}, root=Path("shop"))


def test_the_store_example_loads_with_all_its_parts() -> None:
    store = load(STORE)
    assert len(store.stream.schema) == 19
    assert store.stream.allowed_lateness_us == 240_000_000
    assert store.rules[0].name == "deep_discount_rush"
    assert [w.name for w in store.windows] == ["suspicious_orders", "sales_by_store"]
    assert [s.name for s in store.sinks] == ["all_events", "suspicious", "fraud"]
    assert store.data == STORE / "data"


def test_the_stream_analytics_query_of_the_example_is_kept_to_the_byte() -> None:
    query = load(STORE).windows[0].sql.text
    assert query.startswith("SELECT \n   store_id, \n   COLLECT(id) as ids, \n")
    assert query.endswith("GROUP BY store_id, TumblingWindow(minute, 5)\n")


def test_a_project_read_back_from_its_texts_is_the_same() -> None:
    store = load(STORE)
    assert sorted(store.files) == [
        "rules.toml", "sales_by_store.sql", "suspicious_orders.sql", "tidegate.toml",
    ]  # fmt: skip
    assert Project.from_files(store.files, root=STORE) == store


def test_the_least_project_has_defaults_for_all_else() -> None:
    least = project()
    assert (least.rules, least.windows, least.sinks) == ((), (), ())
    assert least.service.port == 8700
    assert least.stream.dedupe_horizon_us == 7 * 86_400_000_000
    assert least.log.keep_us == least.stream.idle_after_us == 0
    assert least.data == Path("shop/data")


def test_an_absolute_data_folder_is_taken_as_it_is() -> None:
    assert project('[data]\nfolder = "/var/shop"').data == Path("/var/shop")


def test_a_sink_has_the_settings_of_its_type() -> None:
    text = """
    [sinks.s]
    type = "objects"
    from = "events"
    url = "s3://bucket/prefix"
    format = "ndjson"
    path = "{at}/{yyyy-MM-dd}/{HH}"
    options = { endpoint_url = "http://127.0.0.1:9000", client_kwargs = { region_name = "x" } }
    options_env = { secret = "STORE_SECRET" }
    """
    [sink] = project(text).sinks
    assert isinstance(sink, ObjectsSink)
    assert sink.options_env == {"secret": "STORE_SECRET"}
    assert sink.options["client_kwargs"] == {"region_name": "x"}
    assert sink.bytes_max == 10_485_763


def test_two_sinks_may_share_a_window_query() -> None:
    sink = '[sinks.{0}]\ntype = "objects"\nfrom = "w"\nurl = "{0}"\nformat = "json"\npath = "x"\n'
    window = '[[windows]]\nname = "w"\nsql = "w.sql"\n'
    both = project(window + sink.format("a") + sink.format("b"), **{"w.sql": "SELECT 1"})
    assert [s.table for s in both.sinks] == ["w", "w"]


def test_two_sinks_that_would_overwrite_each_other_are_refused() -> None:
    sink = (
        '[sinks.{0}]\ntype = "objects"\nfrom = "events"\nurl = "u"\nformat = "json"\npath = "x"\n'
    )
    with pytest.raises(ProjectError, match="`a` and `b` write to the same"):
        project(sink.format("a") + sink.format("b"))


def test_line_ends_of_windows_are_as_good_as_any() -> None:
    text = MINIMAL.replace("\n", "\r\n")
    read = Project.from_files({"tidegate.toml": text}, root=Path("shop"))
    assert read.stream == project().stream
    with pytest.raises(ProjectError, match=r"tidegate.toml:3:7: `id` names no column"):
        Project.from_files({"tidegate.toml": text.replace('= "id"', '= "ix"')}, root=Path())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('id = "text"', 'id = "bigint"'), None),
        (('id = "text"', 'id = "text?"'), r"6:6: `id` is the stream's id: it cannot be missing"),
        (('id = "text"', 'id = "double"'), r"must be `text` or `bigint`, not `double`"),
        (
            ('at = "timestamp"', 'at = "text"'),
            r"7:6: `at` is the event time: it must be `timestamp`",
        ),
        (('at = "timestamp"', 'at = "timestamp?"'), r"hint: write `timestamp` without `\?`"),
        (('event_time = "at"', 'event_time = "att"'), r"`event_time` names no column: `att`"),
    ],
)
def test_id_and_event_time_are_columns_of_fit_types(
    change: tuple[str, str], message: str | None
) -> None:
    files = {"tidegate.toml": MINIMAL.replace(*change)}
    if message is None:
        Project.from_files(files, root=Path())
        return
    with pytest.raises(ProjectError, match=message):
        Project.from_files(files, root=Path())


@pytest.mark.parametrize("name", ["events", "decisions", "dead_letters", "duplicates", "late_rows"])
def test_a_window_query_cannot_take_the_name_of_a_table(name: str) -> None:
    with pytest.raises(ProjectError, match=f"`{name}` is a table that Tidegate keeps itself"):
        project(f'[[windows]]\nname = "{name}"\nsql = "w.sql"', **{"w.sql": "SELECT 1"})


TABLE_HEADINGS = [
    ("[service]", "service"), ("[warehouse]", "warehouse"), ("[log]", "log"), ("[data]", "data"),
    ("[stream]", "stream"), ("[[windows]]", "windows"), ("[[rule]]", "rule"), ("[sinks.s]", "s"),
]  # fmt: skip
KNOWN = {s.key for declared in TABLES.values() for s in settings_of(declared[0])}


@given(
    st.sampled_from(TABLE_HEADINGS),
    st.from_regex(r"[a-zA-Z_-]{1,20}", fullmatch=True).filter(lambda k: k not in KNOWN),
)
@settings(max_examples=100)
def test_an_unknown_key_is_refused_with_a_suggestion(heading: tuple[str, str], key: str) -> None:
    file = "rules.toml" if heading[1] == "rule" else "tidegate.toml"
    text = f"{heading[0]}\n'{key}' = 1\n"
    with pytest.raises(ProjectError) as caught:
        Project.from_files({"tidegate.toml": "", file: text}, root=Path())
    [unknown] = [p for p in caught.value.problems if "unknown" in p.message]
    assert unknown.message == f"unknown setting `{key}`"
    assert unknown.hint is not None
    assert unknown.hint.startswith(("did you mean `", "known here: `"))
    assert (unknown.file, unknown.line, unknown.column) == (file, 2, 1)


VALUES = [
    "1", "-1", "0xFF", "1.5", "nan", "-inf", "true", '""', "''", '"x"', "[]", "[1, [2]]", "{}",
    "{a = {b = [1]}}", "1979-05-27T07:32:00Z", "07:32:00", '"""\na\\\n  b"""', '"4 minutes"',
    '"\\u0000"', "0x" + "f" * 5000, "9" * 30, '"9999999999 days"', '"../.."', '"é\\U0001F600"',
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The example's text with lines dropped, repeated, cut, or given other values."""
    lines = (STORE / draw(st.sampled_from(["tidegate.toml", "rules.toml"]))).read_text().split("\n")
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "repeat", "cut", "value", "insert"]))
        if kind == "drop" and len(lines) > 1:
            del lines[i]
        elif kind == "repeat":
            lines.insert(draw(st.integers(0, len(lines))), lines[i])
        elif kind == "cut":
            lines[i] = lines[i][: draw(st.integers(0, len(lines[i])))]
        elif kind == "value":
            lines[i] = lines[i].partition("=")[0] + "= " + draw(st.sampled_from(VALUES))
        else:
            lines[i] += draw(st.text(max_size=5))
    return "\n".join(lines)


def problems_of(files: dict[str, str]) -> tuple[Problem, ...]:
    try:
        Project.from_files(files, root=Path())
    except ProjectError as error:
        return error.problems
    return ()


def check_places(files: dict[str, str]) -> None:
    """Whatever is refused, the problems point into the files."""
    for problem in problems_of(files):
        lines = files.get(problem.file, "").replace("\r\n", "\n").split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


@given(mutated(), mutated())
@settings(max_examples=300)
def test_whatever_is_written_only_problems_come_out(settings_text: str, rules_text: str) -> None:
    files = {"suspicious_orders.sql": "SELECT 1", "sales_by_store.sql": ""}
    check_places({"tidegate.toml": settings_text, "rules.toml": rules_text, **files})


@given(st.text(max_size=200))
@example("a = " + "[" * 5000)
@example("a = " + "{b=" * 5000)
@example("[sinks.s]\noptions" + ".a" * 3000 + " = 1")
@example("a = " + "9" * 5000)
@example("[service]\nport = 0x" + "f" * 5000)
def test_arbitrary_text_gives_problems_only(text: str) -> None:
    check_places({"tidegate.toml": text, "rules.toml": text})


@given(st.binary(max_size=100))
@settings(max_examples=50)
def test_arbitrary_bytes_give_problems_only(tmp_path_factory: Any, content: bytes) -> None:
    root = tmp_path_factory.mktemp("project")
    (root / "tidegate.toml").write_bytes(content)
    with pytest.raises(ProjectError):
        load(root)


def test_features_are_read_from_the_file_that_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text(MINIMAL + '[features]\nsql = "features.sql"\n')
    (tmp_path / "features.sql").write_text("SELECT 1 AS one FROM events")
    found = load(tmp_path).features
    assert found is not None
    assert found.sql.text == "SELECT 1 AS one FROM events"
    assert (found.lateness_us, found.look_back_us) == (86_400_000_000, 400 * 86_400_000_000)
    assert project().features is None


def test_features_without_their_file_are_refused() -> None:
    with pytest.raises(ProjectError, match="`sql` is missing in `\\[features\\]`"):
        project("[features]\n")
    with pytest.raises(ProjectError, match=r"names `features.sql`, a file that is not there"):
        project('[features]\nsql = "features.sql"\n')
