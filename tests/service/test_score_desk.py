"""The desk of `/v1/score` lets go of requests as soon as they are answered."""

import asyncio
import gc
import weakref
from pathlib import Path

from shops import event, write
from tidegate.pipeline import Pipeline
from tidegate.service.score.desk import Desk
from tidegate.verdicts import Awaited, Decided, Results


class Asker:
    """Waits for the decision on one event."""

    count = 1

    def __init__(self) -> None:
        self.awaited: Awaited | None = None
        self.place = 0
        self.results: Results | None = None
        self.is_told = asyncio.Event()

    def told(self, results: Results) -> None:
        self.results = results
        self.is_told.set()

    def failed(self, error: Exception) -> None:
        raise error


async def ask(pipeline: Pipeline) -> list[weakref.ref[Asker]]:
    loop = asyncio.get_running_loop()
    desk = Desk(pipeline.door, pipeline.verdicts, loop, waiting_max=100, hold_back_seconds=10)
    gone = []
    for turn in range(3):
        askers = [Asker() for _ in range(5)]
        for i, asker in enumerate(askers):
            desk.put_one(event(f"e{turn}-{i}"), asker)
        for asker in askers:
            await asyncio.wait_for(asker.is_told.wait(), 30)
            assert isinstance(asker.results, list)
            assert isinstance(asker.results[0], Decided)
        gone += [weakref.ref(asker) for asker in askers]
        del askers, asker
        await asyncio.sleep(0)
    return gone


def test_answered_requests_are_let_go_of_without_a_search_for_circles(tmp_path: Path) -> None:
    with Pipeline(write(tmp_path)) as pipeline:
        gc.collect()
        gc.disable()
        try:
            gone = asyncio.run(ask(pipeline))
            assert [ref() for ref in gone] == [None] * 15
        finally:
            gc.enable()
