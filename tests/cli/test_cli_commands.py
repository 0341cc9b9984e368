"""What each command answers, says and returns."""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from .command import Run, generate, process

NOTHING_YET = "has no tables yet"


def test_new_makes_a_project_that_check_passes(run: Run, tmp_path: Path) -> None:
    made = run("new", tmp_path / "shop", "--example", "store")
    assert made.code == 0
    assert "tidegate.toml" in made.text
    checked = run("check", tmp_path / "shop")
    assert checked.code == 0
    assert "no mistakes" in checked.text


def test_new_leaves_a_folder_with_files_alone(run: Run, empty: Path) -> None:
    again = run("new", empty)
    assert again.code == 1
    assert "is not an empty folder" in again.err


def test_check_shows_every_mistake_at_its_place(run: Run, empty: Path) -> None:
    rules = (empty / "rules.toml").read_text().replace("discount > 50", "discont > 50")
    (empty / "rules.toml").write_text(rules.replace("qty >= 75", "quantity >= 75"))
    found = run("check", empty)
    assert found.code == 1
    assert len(re.findall(r"^rules\.toml:\d+:\d+: .*$", found.err, re.MULTILINE)) == 2
    assert re.search(r"^ +\^$", found.err, re.MULTILINE)
    assert "hint:" in found.err
    assert found.err.endswith("2 mistakes\n")


def test_check_looks_at_the_outputs_that_sinks_name(run: Run, empty: Path) -> None:
    settings = (empty / "tidegate.toml").read_text()
    (empty / "tidegate.toml").write_text(settings.replace('output = "fraud-', 'output = "frau-'))
    found = run("check", empty)
    assert found.code == 1
    assert "frau-detective-output-008" in found.err


@pytest.mark.parametrize(
    "words", [("check",), ("run",), ("query", "SELECT 1"), ("reconcile",), ("deadletters",)]
)
def test_a_folder_without_a_project_is_told_in_words(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    answer = run(words[0], tmp_path / "nowhere", *words[1:])
    assert answer.code == 1
    assert "no such file" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", [("query", "SELECT 1"), ("tables",), ("reconcile",)])
def test_before_anything_ran_commands_say_what_makes_tables(
    run: Run, empty: Path, words: tuple[str, ...]
) -> None:
    answer = run(words[0], empty, *words[1:])
    assert answer.code == 1
    assert NOTHING_YET in answer.err
    assert not (empty / "data").exists()


@pytest.mark.parametrize("word", [None, "show", "resend"])
def test_before_anything_ran_there_are_no_dead_letters(
    run: Run, empty: Path, word: str | None
) -> None:
    answer = run("deadletters", empty, *([word] if word else []))
    assert answer.code == 1
    assert NOTHING_YET in answer.err


def test_a_missing_argument_is_told_without_a_traceback(run: Run) -> None:
    answer = run("query")
    assert answer.code == 2
    assert "Missing argument 'FOLDER'" in answer.err


# -- query -----------------------------------------------------------------------------------------

QUERY = "SELECT id, store_id, discount, gift_wrap, ts FROM events ORDER BY log_offset LIMIT 7"


def test_a_table_shows_every_id_whole(run: Run, shop: Path) -> None:
    lines = run("query", shop, QUERY).text.splitlines()
    assert lines[0].split() == ["id", "store_id", "discount", "gift_wrap", "ts"]
    assert len(lines) == 8
    assert all(re.match(r"[0-9a-f-]{36}  ", line) for line in lines[1:])
    assert all(line == line.rstrip() for line in lines)


def test_json_has_an_object_for_each_line(run: Run, shop: Path) -> None:
    rows = [json.loads(li) for li in run("query", shop, QUERY, "--format", "json").out.splitlines()]
    assert len(rows) == 7
    assert isinstance(rows[0]["gift_wrap"], bool)
    assert rows[0]["ts"].startswith("2023-06-06T20:00:00")


def test_sums_are_numbers_in_json(run: Run, shop: Path) -> None:
    sql = "SELECT sum(qty) AS qty, 1.50::DECIMAL(9,2) AS price, INTERVAL 1 DAY AS d FROM events"
    row = json.loads(run("query", shop, sql, "--format", "json").out)
    assert isinstance(row["qty"], int)
    assert row["price"] == 1.5


def test_csv_can_be_read_back(run: Run, shop: Path) -> None:
    sql = "SELECT 'a,\"b\"\nc' AS odd, NULL AS nothing, count(*) AS n FROM events"
    rows = list(csv.reader(io.StringIO(run("query", shop, sql, "--format", "csv").text)))
    assert rows[0] == ["odd", "nothing", "n"]
    assert rows[1][:2] == ['a,"b"\nc', ""]


def test_parquet_and_the_tables_agree(run: Run, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    assert run("query", shop, "SELECT * FROM events", "-o", file).code == 0
    (line,) = run("query", shop, "SELECT count(*) AS n FROM events").text.splitlines()[1:]
    assert pq.read_table(file).num_rows == int(line)
    piped = run("query", shop, "SELECT * FROM events", "--format", "parquet").out
    assert pq.read_table(io.BytesIO(piped)).num_rows == int(line)


def test_the_ending_of_the_output_says_the_format(run: Run, shop: Path, tmp_path: Path) -> None:
    for name, begin in (("a.csv", b"n\n"), ("a.json", b'{"n":'), ("a.txt", b"n\n")):
        assert run("query", shop, "SELECT 1 AS n", "-o", tmp_path / name).code == 0
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_query_that_fails_leaves_the_old_file(run: Run, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("old")
    late = "SELECT CAST(CASE WHEN log_offset < 1900 THEN '1' ELSE 'x' END AS INTEGER) FROM events"
    assert run("query", shop, late, "-o", file).code == 1
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_an_output_that_cannot_be_written_is_told(run: Run, shop: Path, tmp_path: Path) -> None:
    answer = run("query", shop, "SELECT 1", "-o", tmp_path / "no" / "a.csv")
    assert answer.code == 1
    assert answer.err == f"error: cannot write {tmp_path}/no/a.csv: No such file or directory\n"
    assert run("query", shop, "SELECT 1", "--format", "csv", "-o", "/dev/full").code == 1


def test_a_long_table_is_cut_with_a_note(run: Run, shop: Path) -> None:
    lines = run("query", shop, "SELECT * FROM range(250)").text.splitlines()
    assert len(lines) == 102
    assert lines[-1].startswith("… 250 rows in all")


def test_a_mistake_in_a_query_has_its_caret(run: Run, shop: Path) -> None:
    answer = run("query", shop, "SELEC 1")
    assert answer.code == 1
    assert "LINE 1: SELEC 1\n        ^" in answer.err
    assert "[1]" in run("query", shop, "SELECT [1] :bug: x").err


def test_an_unknown_table_brings_the_known_ones(run: Run, shop: Path) -> None:
    assert "`decisions`" in run("query", shop, "SELECT * FROM decision").err


def test_a_time_that_only_sql_can_hold_is_no_traceback(run: Run, shop: Path) -> None:
    answer = run("query", shop, "SELECT 'infinity'::TIMESTAMP AS t")
    assert answer.code == 1
    assert "CAST" in answer.err


def test_names_that_are_there_twice_are_both_shown(run: Run, shop: Path) -> None:
    lines = run("query", shop, "SELECT 1 AS a, 2 AS a").text.splitlines()
    assert lines[1].split() == ["1", "2"]


def test_values_cannot_speak_to_the_terminal(run: Run, shop: Path) -> None:
    answer = run("query", shop, "SELECT chr(27) || '[31m' AS red, chr(10) AS line")
    assert b"\x1b" not in answer.out
    assert "\\x1b[31m" in answer.text


# -- generate --------------------------------------------------------------------------------------

SAME = ("--count", 300, "--seed", 7, "--start", "2023-06-06T20:00:00", "--unreadable", 0.1)


def test_the_same_seed_and_start_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first, second = run("generate", "store", *SAME), run("generate", "store", *SAME)
    assert first.out == second.out
    assert first.out.count(b"\n") >= 300
    assert run("generate", "store", *SAME, "--to", tmp_path / "f.ndjson").code == 0
    assert (tmp_path / "f.ndjson").read_bytes() == first.out
    assert run("generate", "store", *SAME, "--seed", 8).out != first.out


def test_generated_cards_are_the_same_for_the_same_seed_and_days(run: Run, tmp_path: Path) -> None:
    asked = ("generate", "cards", "--customers", 200, "--start", "2024-02-28", "--seed", 3)
    three = run(*asked, "--days", 3)
    assert three.out.startswith(run(*asked, "--days", 2).out)
    assert run(*asked, "--days", 3, "--to", tmp_path / "f.ndjson").code == 0
    assert (tmp_path / "f.ndjson").read_bytes() == three.out
    times = [json.loads(line)["event_time"] for line in three.out.splitlines()]
    assert times == sorted(times)
    assert {time[:10] for time in times} == {"2024-02-28", "2024-02-29", "2024-03-01"}


def test_generate_refuses_what_no_seed_can_be(run: Run) -> None:
    for kind in ("store", "cards"):
        answer = run("generate", kind, "--seed", -1)
        assert answer.code == 2
        assert "greater than or equal to 0" in answer.err


def test_generate_tells_when_nobody_listens(run: Run) -> None:
    answer = run("generate", "store", "--to", "http://127.0.0.1:9/v1/events")
    assert answer.code == 3
    assert answer.err == "error: 127.0.0.1:9 does not answer: Connection refused\n"


def test_generate_tells_where_it_cannot_write(run: Run, tmp_path: Path) -> None:
    assert "cannot write" in run("generate", "store", "--to", tmp_path / "no" / "f").err
    assert "is no URL" in run("generate", "store", "--to", "http://[::").err


# -- ingest and tables -----------------------------------------------------------------------------


def test_ingest_says_what_became_of_the_records(run: Run, empty: Path, tmp_path: Path) -> None:
    file = generate(tmp_path / "day.ndjson", count=300, repeated=0.1)
    first, second = run("ingest", empty, file), run("ingest", empty, file)
    assert first.code == second.code == 0
    counts = re.findall(r"\d+", first.text)
    assert int(counts[0]) == 300 == sum(map(int, counts[1:]))
    assert second.text == "300 records taken: 0 events, 0 dead letters, 300 duplicates\n"


def test_a_missing_file_is_told_before_any_is_taken(run: Run, empty: Path, tmp_path: Path) -> None:
    file = generate(tmp_path / "day.ndjson", count=10)
    answer = run("ingest", empty, file, tmp_path / "missing.csv")
    assert answer.code == 1
    assert answer.err == f"error: {tmp_path}/missing.csv: No such file or directory\n"
    assert not (empty / "data").exists()


def test_tables_are_listed_with_their_rows(run: Run, shop: Path) -> None:
    rows = {line.split()[0]: line.split()[1] for line in run("tables", shop).text.splitlines()}
    assert rows["events"] == rows["decisions"]
    assert int(rows["dead_letters"]) > 10


# -- imports ---------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    """What `--help` imports decides how soon it is there; counting is steadier than timing."""
    import subprocess
    import sys

    code = "import sys; import tidegate.cli.app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    heavy = {"numpy", "pyarrow", "polars", "numba", "duckdb", "deltalake", "rich", "fastapi"}
    assert not heavy & set(done.stdout.split())


def test_a_reader_that_goes_away_is_no_error_to_talk_about(shop: Path) -> None:
    import subprocess

    from .command import command

    sql = "SELECT e.* FROM events e, range(200)"
    with subprocess.Popen(
        command("query", shop, sql, "--format", "csv"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as query:
        assert query.stdout is not None
        assert query.stderr is not None
        query.stdout.readline()
        query.stdout.close()
        assert query.stderr.read() == b""
        assert query.wait() in (1, 141)


def test_the_module_is_the_command() -> None:
    assert "reconcile" in process("--help").text
