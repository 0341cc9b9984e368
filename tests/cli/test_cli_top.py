"""`tidegate top`: what two scrapes say, and the picture of a real server."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from rich.console import Console

from service.process import ServerProcess, end, event, launch
from tidegate.cli.scrape import Change, Scrape, Source
from tidegate.cli.watch import frame
from tidegate.errors import RequestError, UnreachableError
from tidegate.stages import BUCKETS, Histogram

from .command import Run, process


def exposed(taken: Histogram, *, name: str = "tidegate_stage_seconds") -> str:
    lines = [f"# TYPE {name} histogram"]
    lines += [
        f'{name}_bucket{{stage="decode",le="{end}"}} {count}' for end, count in taken.cumulated()
    ]
    lines.append(f'{name}_count{{stage="decode"}} {sum(taken.counts)}')
    lines.append(f'{name}_sum{{stage="decode"}} {taken.seconds}')
    return "\n".join(lines) + "\n"


def change(before: str, after: str, *, seconds: float = 2.0) -> Change:
    return Change(Scrape.of(before, at=10.0), Scrape.of(after, at=10.0 + seconds))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
def test_a_quantile_lies_in_the_bucket_of_the_true_one_and_old_observations_do_not_count(
    share: float,
) -> None:
    chance, taken = random.Random(3), Histogram()
    for _ in range(500):
        taken.add(20.0)
    before = exposed(taken)
    fresh = sorted(chance.lognormvariate(-5, 1.5) for _ in range(400))
    for seconds in fresh:
        taken.add(seconds)
    found = change(before, exposed(taken)).quantile("tidegate_stage_seconds", share, stage="decode")
    true = fresh[math.ceil(share * len(fresh)) - 1]
    low, high = max(e for e in (0.0, *BUCKETS) if e < true), min(e for e in BUCKETS if e >= true)
    assert found is not None
    assert low <= found <= high


def test_without_observations_there_is_no_quantile() -> None:
    text = exposed(Histogram())
    same = change(text, text)
    assert same.quantile("tidegate_stage_seconds", 0.5, stage="decode") is None
    assert same.quantile("tidegate_stage_seconds", 0.5, stage="other") is None
    assert same.count("tidegate_stage_seconds", stage="decode") == 0


def test_what_is_slower_than_all_buckets_counts_as_the_last_end() -> None:
    taken = Histogram()
    taken.add(1e6)
    found = change("", exposed(taken)).quantile("tidegate_stage_seconds", 0.99, stage="decode")
    assert found == BUCKETS[-1]


def test_a_rate_is_what_a_counter_grew_by_also_after_it_began_anew() -> None:
    line = 'tidegate_decisions_total{{action="{}"}} {}\n'
    head = "# TYPE tidegate_decisions counter\n"
    before = head + line.format("approve", 100) + line.format("review", 50)
    after = head + line.format("approve", 160) + line.format("review", 8) + line.format("block", 2)
    rates = change(before, after).rates("tidegate_decisions_total", "action")
    assert rates == {"approve": 30.0, "review": 4.0, "block": 1.0}


def test_a_picture_of_a_server_that_says_nothing_is_whole_and_80_columns_wide() -> None:
    console = Console(width=80, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - closed below
    console.print(frame("http://127.0.0.1:8700", change("", "")))
    console.file.close()
    lines = console.export_text().splitlines()
    assert "STOPPED" in lines[0]
    assert any("arrival to decision" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.fixture
def server(tmp_path: Path) -> ServerProcess:
    folder = tmp_path / "shop"
    folder.mkdir()
    return launch(folder)


def test_one_picture_shows_what_was_decided_meanwhile(server: ServerProcess) -> None:
    try:
        with server.client() as client:
            for number in range(20):
                client.post("/v1/events", content=event(f"e{number}", discount=60))
        server.settle()
        done = process("top", server.url, "--once", "--every", "0.5")
    finally:
        end(server)
    assert done.code == 0, done.err
    lines = done.text.splitlines()
    assert lines[0].startswith(f"{server.url}  deciding  project ")
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["deep_discount", "live"] in [w[:2] for w in words]
    (hits,) = [w[-1] for w in words if w[:1] == ["deep_discount"]]
    assert hits == "20"
    for stage in ("decode", "commit", "engine", "rules", "write"):
        assert any(w[:1] == [stage] for w in words), stage


def test_who_does_not_answer_is_named(run: Run, tmp_path: Path) -> None:
    answer = run("top", "http://127.0.0.1:9", "--once")
    assert answer.code == 3
    assert "http://127.0.0.1:9 does not answer" in answer.err
    assert run("top", tmp_path, "--once").code == 1
    assert "is neither a folder nor a URL" in run("top", "ftp://x", "--once").err


def test_a_server_that_asks_for_a_key_is_given_that_of_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    server = launch(folder, before=_CLOSED)
    try:
        with pytest.raises(RequestError, match="TIDEGATE_KEY"):
            Source.of(server.url, environment={}).read()
        made = process("keys", folder, "add", "watcher", "--scope", "query")
        assert made.code == 0, made.err
        key = next(word for word in made.text.split() if word.startswith("tg"))
        source = Source.of(server.url, environment={"TIDEGATE_KEY": key})
        assert source.read().value("tidegate_up") == 1
    finally:
        end(server)
    with pytest.raises(UnreachableError):
        source.read()


_CLOSED = """
import dataclasses
import tidegate.project.project as project
_load = load
def load(root):
    found = _load(root)
    return dataclasses.replace(found, access=dataclasses.replace(found.access, required=True))
"""
