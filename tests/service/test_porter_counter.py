"""A porter's counter: what goes to the house, what is answered, and what is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tidegate.rows import Rows
from tidegate.service.exchange import Exchange
from tidegate.service.porter.counter import Counter
from tidegate.service.porter.head import Found, Head
from tidegate.service.porter.messages import (
    Asked,
    Decisions,
    Elsewhere,
    Frames,
    FromPorter,
    Late,
    NoEvents,
    Passed,
    Refused,
    Welcome,
)
from tidegate.service.score.refusals import AT_ONCE


class Desk:
    """A counter, and all that it says."""

    def __init__(self, *, waiting_max: int = 100, hold_back: float = 10.0) -> None:
        welcome = Welcome("id", "v1", 5.0, "review", waiting_max, hold_back, 1.0, "p")
        loop = asyncio.get_running_loop()
        self.frames = Frames()
        self.said: list[Any] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.left: list[str] = []
        self.connections = 1
        self.counter = Counter(welcome, loop, send=self._hear, connections=lambda: self.connections)

    def _hear(self, data: bytes) -> None:
        self.said += [msgspec.msgpack.decode(b, type=FromPorter) for b in self.frames.feed(data)]

    def ask(self, name: str, *, key: bytes | None = None, timeout_ms: int | None = None) -> None:
        exchange = Exchange(b"/v1/score", b"", self._answered)
        exchange.request_id = name
        body = msgspec.json.encode({"id": name})
        found = Found(Head(len(body), key, b"", timeout_ms), body, len(body))
        self.counter.ask(exchange, found, lambda: self.left.append(name))

    def _answered(self, exchange: Exchange, status: int, rest: bytes) -> None:
        body = rest.partition(b"\r\n\r\n")[2]
        self.answers[exchange.request_id] = (status, msgspec.json.decode(body))

    def decide(self, number: int, *names: str, first: int = 0, **more: Any) -> None:
        count = len(names)
        places = list(range(first, first + count))
        rules = [
            [{"name": "r", "action": "block", "mode": m, "reason": "x"} for m in ("live", "shadow")]
        ]
        scores: list[float | None] = [None] * count
        columns = (list(names), ["block"] * count, scores, rules * count, ["v2"] * count)
        features = [[float(p) for p in places]]
        found = Rows(*columns, places, ["f"], features)
        self.counter.receive(Decisions(number, places, found, **more))


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_requests_of_one_turn_go_together_and_the_next_wait_for_the_answer() -> None:
    async def work() -> None:
        desk = Desk()
        desk.ask("a")
        desk.ask("b")
        await asyncio.sleep(0)
        desk.ask("c")
        await asyncio.sleep(0.01)
        assert [(m.payload, m.ends) for m in desk.said] == [(b'{"id":"a"}\n{"id":"b"}', [10, 21])]
        desk.decide(1, "a", "b")
        await asyncio.sleep(0)
        assert [m.payload for m in desk.said[1:]] == [b'{"id":"c"}']
        assert (desk.counter.waiting, sorted(desk.answers)) == (1, ["a", "b"])
        status, body = desk.answers["b"]
        assert (status, body["event_id"], body["action"]) == (200, "b", "block")
        assert (body["rules"], body["features"], body["version"], body["offset"]) == (
            [{"name": "r", "action": "block", "reason": "x"}],
            {"f": 1.0},
            "v2",
            1,
        )
        assert "duplicate" not in body

    run(work)


def test_a_house_that_is_idle_has_the_next_before_anybody_is_answered() -> None:
    async def work() -> None:
        desk = Desk()
        desk.ask("a")
        await asyncio.sleep(0)
        desk.ask("b")
        desk.counter.receive(Passed(1, is_idle=True, elsewhere=0))
        assert [m.payload for m in desk.said] == [b'{"id":"a"}', b'{"id":"b"}']
        assert not desk.answers
        desk.ask("c")
        desk.decide(1, "a")
        await asyncio.sleep(0.01)
        assert (len(desk.said), sorted(desk.answers)) == (2, ["a"])

    run(work)


def test_a_house_that_is_not_idle_has_the_next_after_the_answers() -> None:
    async def work() -> None:
        desk = Desk()
        desk.ask("a")
        await asyncio.sleep(0)
        desk.ask("b")
        desk.counter.receive(Passed(1, is_idle=False, elsewhere=0))
        desk.decide(1, "a")
        assert (len(desk.said), sorted(desk.answers)) == (1, ["a"])
        await asyncio.sleep(0)
        assert [m.payload for m in desk.said[1:]] == [b'{"id":"b"}']

    run(work)


def test_nobody_waits_for_what_is_looked_up_but_who_asked_for_it() -> None:
    async def work() -> None:
        desk = Desk(hold_back=0.02)
        for number in range(70):
            desk.ask(f"again{number}")
        await asyncio.sleep(0)
        desk.counter.receive(Passed(1, is_idle=False, elsewhere=0))
        await asyncio.sleep(0.05)
        desk.ask("new")  # nor is it refused, though those before have waited for long
        await asyncio.sleep(0)
        assert [m.payload for m in desk.said[1:]] == [b'{"id":"new"}']
        desk.decide(1, "again0", are_repeated=True)
        assert (desk.counter.waiting, sorted(desk.answers)) == (70, ["again0"])

    run(work)


def test_callers_with_different_keys_are_told_apart() -> None:
    async def work() -> None:
        desk = Desk()
        for name, key in (("a", b"k1"), ("b", b"k1"), ("c", None)):
            desk.ask(name, key=key)
        await asyncio.sleep(0)
        assert [(m.authorization, len(m.ends)) for m in desk.said] == [(b"k1", 2), (None, 1)]
        desk.counter.receive(Elsewhere(2))
        assert (desk.left, desk.counter.waiting) == (["c"], 2)

    run(work)


def test_long_records_go_in_several_messages() -> None:
    async def work() -> None:
        desk = Desk()
        names = [letter * 60_000 for letter in "abcdefghijklmnopqrstuvwxyz"]
        for name in names:
            desk.ask(name)
        await asyncio.sleep(0)
        assert [len(m.ends) for m in desk.said] == [17]
        desk.decide(1, *names[:17])
        await asyncio.sleep(0)
        assert [len(m.ends) for m in desk.said] == [17, 9]

    run(work)


def test_many_go_in_their_turn_a_bounded_number_at_a_time() -> None:
    async def work() -> None:
        desk = Desk(waiting_max=1_000)
        names = [f"{number:04}" for number in range(600)]
        for name in names:
            desk.ask(name)
        await asyncio.sleep(0)
        for number, first in enumerate(range(0, 600, 256), start=1):
            some = names[first : first + 256]
            expected = b"\n".join(msgspec.json.encode({"id": name}) for name in some)
            assert [(m.number, m.payload) for m in desk.said[number - 1 :]] == [(number, expected)]
            desk.decide(number, *some)
            await asyncio.sleep(0)
        assert list(desk.answers) == names
        assert desk.counter.waiting == 0

    run(work)


def test_each_place_is_answered_by_what_was_said_of_it() -> None:
    async def work() -> None:
        desk = Desk()
        for name in "abcd":
            desk.ask(name)
        await asyncio.sleep(0)
        desk.decide(1, "a")
        desk.decide(1, "b", first=1, are_repeated=True)
        desk.counter.receive(NoEvents(1, [(2, 77, "wrong_type", "id", "column `id`: no")]))
        desk.counter.receive(Refused(1, [3], 503, "unavailable", "try again", 5.0))
        assert {n: s for n, (s, _) in desk.answers.items()} == {
            "a": 200,
            "b": 200,
            "c": 422,
            "d": 503,
        }
        assert desk.answers["b"][1]["duplicate"] is True
        assert desk.answers["c"][1]["dead_letters"][0]["dead_letter"] == 77
        assert desk.answers["d"][1]["error"]["code"] == "unavailable"
        assert desk.counter.waiting == 0

    run(work)


def test_who_runs_out_of_time_has_the_fallback_and_the_house_is_told() -> None:
    async def work() -> None:
        desk = Desk()
        desk.ask("a", timeout_ms=20)
        await asyncio.sleep(0.1)
        status, body = desk.answers["a"]
        assert (status, body["action"], body["fallback"], body["event_id"]) == (
            200,
            "review",
            True,
            "a",
        )
        late = desk.said[-1]
        assert isinstance(late, Late)
        assert (late.number, late.place, late.event_id, late.action) == (1, 0, "a", "review")
        assert late.reason == "no decision within 20 ms"
        desk.decide(1, "a")  # changes nothing any more
        assert desk.answers["a"][1] == body
        desk.ask("b")
        await asyncio.sleep(0)
        assert isinstance(desk.said[-1], Asked)

    run(work)


def test_too_many_who_wait_are_refused() -> None:
    async def work() -> None:
        desk = Desk(waiting_max=3)
        for name in "abc":
            desk.ask(name)
        desk.ask("d")
        status, body = desk.answers["d"]
        assert (status, body["error"]["code"]) == (429, "overloaded")
        assert body["error"]["message"].startswith("too many events wait")
        await asyncio.sleep(0)
        desk.decide(1, "a", "b", "c")
        desk.ask("e")
        assert (desk.counter.waiting, "e" in desk.answers) == (1, False)

    run(work)


def test_others_are_held_back_where_the_oldest_has_waited_long() -> None:
    async def work() -> None:
        desk = Desk(hold_back=0.02)
        for number in range(64):
            desk.ask(f"r{number}")
        await asyncio.sleep(0.05)
        desk.ask("late")
        assert "take too long" in desk.answers["late"][1]["error"]["message"]

    run(work)


def test_how_long_somebody_waits_counts_from_when_they_came() -> None:
    async def work() -> None:
        desk = Desk(hold_back=0.04)
        desk.ask("first")
        await asyncio.sleep(0)
        for number in range(64):
            desk.ask(f"r{number}")  # they wait for the first, and then for their own
        await asyncio.sleep(0.03)
        desk.decide(1, "first")
        await asyncio.sleep(0)
        assert len(desk.said) == 2
        await asyncio.sleep(0.03)
        desk.ask("late")
        assert "take too long" in desk.answers["late"][1]["error"]["message"]

    run(work)


@pytest.mark.parametrize("closes", [False, True])
def test_of_many_refusals_some_are_told_later_or_when_it_ends(closes: bool) -> None:
    async def work() -> None:
        desk = Desk(waiting_max=1)
        desk.ask("first")
        names = [f"{number:03}" for number in range(AT_ONCE + 50)]
        for name in names:
            desk.ask(name, timeout_ms=200 if name == names[-1] else None)
        assert len(desk.answers) < len(names)
        if closes:
            desk.counter.close()
        else:
            await asyncio.sleep(0.3)
        assert {status for status, _ in desk.answers.values()} == {429}
        assert sorted(desk.answers) == names
        assert desk.counter.waiting == 1

    run(work)


def test_what_the_house_refuses_for_want_of_room_is_told_at_the_same_pace() -> None:
    async def work() -> None:
        desk = Desk(waiting_max=1_000)
        names = [f"{number:03}" for number in range(AT_ONCE + 20)]
        for name in names:
            desk.ask(name)
        await asyncio.sleep(0)
        desk.counter.receive(Refused(1, None, 429, "overloaded", "far behind; try again", 1.0))
        assert (desk.counter.waiting, len(desk.answers) < len(names)) == (0, True)
        await asyncio.sleep(0.3)
        assert sorted(desk.answers) == names
        assert {status for status, _ in desk.answers.values()} == {429}

    run(work)


def test_a_porter_has_its_part_of_those_who_may_wait() -> None:
    async def work() -> None:
        desk = Desk(waiting_max=9)
        desk.connections = 20
        desk.ask("first")
        await asyncio.sleep(0)
        desk.counter.receive(Passed(1, is_idle=False, elsewhere=40))
        desk.decide(1, "first")
        for name in "abcd":
            desk.ask(name)
        assert sorted(desk.answers) == ["d", "first"]
        desk.connections = 80
        for name in "efgh":
            desk.ask(name)
        assert sorted(desk.answers) == ["d", "first", "h"]

    run(work)


def test_a_porter_with_hardly_any_connections_is_asked_all_the_same() -> None:
    async def work() -> None:
        desk = Desk(waiting_max=9)
        desk.ask("first")
        await asyncio.sleep(0)
        desk.counter.receive(Passed(1, is_idle=False, elsewhere=1_000))
        desk.decide(1, "first")
        desk.ask("second")
        assert sorted(desk.answers) == ["first"]

    run(work)
