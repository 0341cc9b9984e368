"""The benchmark of the score endpoint runs on very little, and its figures are of decisions."""

import shutil
from pathlib import Path

import pytest

from benchmarks import corpus, process, score


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made files and runs lie in a folder of the test."""
    for module in (corpus, process, score):
        monkeypatch.setattr(module, "DATA", tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_throughput_latency_and_overload_are_measured() -> None:
    found = {result.name: result for result in score.measure(score.Size.quick())}
    assert {"score.rate_001", "score.rate_004", "score.half_p99", "score.overload_p99"} <= set(
        found
    )
    assert all(found[name].value > 0 for name in found if name != "score.half_withheld")
    assert 0 <= found["score.half_withheld"].value <= 100
    assert found["score.rate_004"].peer_value is not None


def test_the_share_of_processors_that_was_withheld_is_of_what_was_wanted() -> None:
    before, after = process.Processors(1_000, 50), process.Processors(1_090, 60)
    assert after.withheld_since(before) == pytest.approx(0.1)
    assert before.withheld_since(before) == 0.0
    assert process.Processors.now().used > 0
