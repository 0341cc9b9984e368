"""The benchmarks run on very small input, and their page follows from their results alone."""

import shutil
from pathlib import Path

import pytest
from benchmarks.result import Report, Result, Target, markdown

from benchmarks import __main__ as command
from benchmarks import backtest, corpus, decoding, eventlog, ingest, process, sql, windows


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made files and runs lie in a folder of the test."""
    for module in (corpus, process, command):
        monkeypatch.setattr(module, "DATA", tmp_path)


def result(name: str = "ingest.file", **more: object) -> Result:
    return Result.beside(
        name, "A job", [(40.0, 100.0), (60.0, 100.0), (50.0, 50.0)], unit="MB", peer="b", **more
    )


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    assert result().ratio == 0.6
    assert (result().value, result().low, result().high) == (50.0, 40.0, 60.0)


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (None, None),
        (Target("ratio", "≥", 0.6), True),
        (Target("ratio", "≥", 0.61), False),
        (Target("value", "≤", 50.0), True),
        (Target("value", "≤", 49.0), False),
    ],
)
def test_a_target_holds_for_the_value_or_the_ratio(target: Target | None, holds: object) -> None:
    assert result(target=target).holds is holds


def test_a_ratio_that_was_not_measured_reaches_no_target() -> None:
    assert Result.of("a", "A", [1.0], unit="s", target=Target("ratio", "≥", 0.1)).holds is False


def test_a_saved_report_comes_back_as_it_was(tmp_path: Path) -> None:
    report = Report(4, (result(target=Target("ratio", "≥", 0.5)), result("sql.x")))
    report.save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json", cores=4) == report


def test_results_of_another_machine_are_not_mixed_in(tmp_path: Path) -> None:
    Report(4, (result(),)).save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json", cores=8).results == ()


def test_new_results_of_a_benchmark_replace_all_its_old_ones() -> None:
    report = Report(4, (result("sql.old"), result("ingest.file")))
    names = [r.name for r in report.with_results([result("sql.new")], replaced="sql").results]
    assert names == ["ingest.file", "sql.new"]


def test_the_page_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    report = Report(4, (result(target=Target("ratio", "≥", 0.7), note="A remark"),))
    for name in ("one.md", "two.md"):
        command.write_page(report, tmp_path / name, measured=["ingest"])
    page = (tmp_path / "one.md").read_text()
    assert page == (tmp_path / "two.md").read_text()
    assert "| A job | 50 MB (40 to 60) | b: 100 MB (50 to 100) | 0.6 |" in page
    assert "ratio ≥ 0.7: **missed**" in page
    assert "- A job: A remark" in page
    assert "4 cores" in page


def test_the_page_has_no_section_without_results() -> None:
    page = markdown(Report(4, (result("sql.x"),)), titles=command.TITLES, measured=["sql"])
    assert "## Rules in SQL" in page
    assert "## Event log" not in page


def test_the_page_keeps_what_was_not_measured_now(tmp_path: Path) -> None:
    path, names = tmp_path / "page.md", ("eventlog.a", "sql.b", "windows.c")
    whole = Report(4, tuple(map(result, names)))
    command.write_page(whole, path, measured=["eventlog", "sql", "windows"])
    before = path.read_text()
    other = Report(4, (result("eventlog.other", note="older"), result("sql.b", note="newer")))
    command.write_page(other, path, measured=["sql"])
    page = path.read_text()
    assert page.replace("\n- A job: newer\n", "\n") == before
    assert "older" not in page
    command.write_page(whole, path, measured=["sql"])
    assert path.read_text() == before


@pytest.mark.parametrize("way", decoding.WAYS)
def test_the_yardstick_decodes_every_event(way: str) -> None:
    path = corpus.store_file(50)
    assert sum(map(decoding.WAYS[way], corpus.blocks(path, block_bytes=1_000))) == 50


def test_blocks_and_batches_are_the_file_in_whole_lines() -> None:
    path = corpus.store_file(50)
    for parts in (corpus.blocks(path, block_bytes=1_000), corpus.batches(path, lines=7)):
        found = list(parts)
        assert b"".join(found) == path.read_bytes()
        assert all(part.endswith(b"\n") for part in found)


def test_the_rules_give_the_same_rows_in_tidegate_polars_and_duckdb() -> None:
    ways = sql.Ways.of(sql._batch(300))
    expected = [column.to_pylist() for column in ways.in_duckdb().columns]
    assert [e.values.to_pylist() for e in ways.ours()] == expected
    assert [column.to_list() for column in ways.by_hand().get_columns()] == expected
    assert any(True in column for column in expected)


def test_windows_give_as_many_rows_as_duckdb() -> None:
    [found] = windows.measure(events=3_000, rounds=1)
    assert found.ratio is not None
    assert "rows out" in found.what


def test_a_backtest_is_measured_beside_duckdb() -> None:
    [found] = backtest.measure(backtest.Size.quick())
    assert found.value > 0
    assert found.peer_value is not None


def test_the_rules_of_the_two_sides_differ_in_every_condition() -> None:
    assert len({backtest.condition(n) for n in range(backtest.RULES)}) == backtest.RULES
    assert all(backtest.condition(n) != backtest.condition(n, stricter=1) for n in range(50))


def test_the_event_log_is_measured_beside_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "THREADS", 4)
    monkeypatch.setattr(eventlog, "_BULK_LINES", 20)
    found = {r.name for r in eventlog.measure(seconds=0.02, rounds=1)}
    assert {"eventlog.append_p50", "eventlog.append_p99"} < found
    assert {"eventlog.threads", "eventlog.bulk"} < found


def test_the_whole_way_is_measured_from_file_and_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without wrk, the generator that comes with the benchmark is used.
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    size = ingest.Size(events=1_500, rounds=1, single_seconds=0.3, tenfold=False)
    found = {r.name: r for r in ingest.measure(size)}
    assert all(r.value > 0 for r in found.values())
    assert {"ingest.file", "ingest.memory", "ingest.http_batches"} < found.keys()
    assert {"ingest.http_singles", "ingest.stage_engine"} < found.keys()
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
