"""What the keeper's work asks of the stages beside it."""

from pathlib import Path

import pytest

from shops import running, write
from tidegate import keeper


def test_a_merge_waits_for_a_sink_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outside may hang, and files are merged all the same."""
    monkeypatch.setattr(keeper, "_TURN_SECONDS", 0.1)
    with (
        running(write(tmp_path)) as pipeline,
        pipeline._turn.taken(seconds=0),
        pipeline.keeper._merging(),
    ):
        assert len(pipeline._turn._asked) == 2
