"""Makes store events and sends them through the door, answering as the original function did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tidegate.clock import Clock
from tidegate.errors import TidegateError
from tidegate.records import Records
from tidegate.service.errors import refusal_of
from tidegate.service.events.body import Disconnected, receive_body
from tidegate.service.state import State
from tidegate.testing.store import generate, produce_summary

PATH = "/store-events-producer-fn"
SOURCE = "producer"
COUNT_DEFAULT = 10
COUNT_MAX = 10_000

_BODY_BYTES_MAX = 64 << 10
_RATE_PER_SECOND = 1000.0
_TEXT = """
Takes `count` from the query, or from a JSON body `{"count": N}`; 10 by default, 10000 at most.
Always answers 200, as its makers' function did: `miztiik_event_processed` tells whether it went
well, and `resp.err_msg` why not.
"""


class Seeds:
    """Seeds that never come twice: the time, in microseconds, moved on where it stands still.

    With a clock that is held, the same requests make the same events.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        """A new seed."""
        self._last = max(self._clock.now(), self._last + 1)
        return self._last


def producer_routes(state: State) -> APIRouter:
    """`/store-events-producer-fn`, for GET and POST."""
    router = APIRouter(tags=["demonstration"])
    seeds = Seeds(state.pipeline.clock)

    async def produce(request: Request) -> Response:
        seed = seeds.next()
        try:
            count = _count(await _asked(request, state))
            state.check()
            records = await run_in_threadpool(_produce, state, count, seed)
            said = produced(count, records, now=seed)
        except Disconnected:
            return Response()
        except ValueError as error:
            said = failed(str(error), now=seed)
        except TidegateError as error:
            said = failed(str(refusal_of(error)), now=seed)
        return Response(json.dumps(said, indent=4), media_type="application/json")

    for method in ("GET", "POST"):
        router.add_api_route(
            PATH,
            produce,
            methods=[method],
            summary="Make store events",
            description=_TEXT.strip(),
            operation_id=f"produce_{method.lower()}",
            openapi_extra=_EXTRA,
        )
    return router


async def _asked(request: Request, state: State) -> Any:
    """What was given as count: the query's, else the body's, else the default."""
    if "count" in request.query_params:
        return request.query_params["count"]
    with state.budget.share() as share:
        body = await receive_body(request.receive, bytes_max=_BODY_BYTES_MAX, share=share)
    if not body.strip():
        return COUNT_DEFAULT
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("the body is not JSON") from error
    return given.get("count", COUNT_DEFAULT) if isinstance(given, dict) else COUNT_DEFAULT


def _count(given: Any) -> int:
    """The count as a number. Raises: ValueError with what is wrong with it."""
    text = str(given)
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9):
        raise ValueError(f"count is `{text[:50]}`, expected a whole number from 1 to {COUNT_MAX}")
    if not 1 <= int(text) <= COUNT_MAX:
        raise ValueError(f"count is {int(text)}, expected 1 to {COUNT_MAX}")
    return int(text)


def _produce(state: State, count: int, seed: int) -> list[bytes]:
    """Make events that end at the time of the seed, and send them through the door."""
    begin = seed - int(count * 1e6 / _RATE_PER_SECOND)
    made = generate(count, seed=seed, start_time_us=begin, rate_per_second=_RATE_PER_SECOND)
    records = list(made)
    for first in range(0, count, limit := state.settings.batch_records_max):
        part = Records.of(records[first : first + limit])
        state.pipeline.door.submit(part, source=SOURCE)
    return records


def produced(count: int, records: list[bytes], *, now: int) -> dict[str, Any]:
    """The answer when the events are in the log; `now` in UTC microseconds."""
    return {
        "miztiik_event_processed": True,
        "msg": f"Generated {count} messages",
        "resp": {"status": True, **produce_summary(records)},
        "count": count,
        "last_processed_on": _naive(now),
    }


def failed(reason: str, *, now: int) -> dict[str, Any]:
    """The answer when nothing was made, or not all of it is known to be in the log."""
    return {
        "miztiik_event_processed": False,
        "msg": "",
        "resp": {"status": False, "err_msg": reason},
        "last_processed_on": _naive(now),
    }


def _naive(time_us: int) -> str:
    """UTC without a zone, as the original wrote its times."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).replace(tzinfo=None).isoformat()


def _schema(*names: str) -> dict[str, Any]:
    types = {"miztiik_event_processed": "boolean", "resp": "object", "count": "integer"}
    return {
        "type": "object",
        "properties": {n: {"type": types.get(n, "string")} for n in names},
    }


_EXTRA: dict[str, Any] = {
    "parameters": [
        {
            "name": "count",
            "in": "query",
            "required": False,
            "description": f"How many events to make, 1 to {COUNT_MAX}; all else makes none.",
            "schema": {"type": "string", "default": str(COUNT_DEFAULT)},
        }
    ],
    "responses": {
        "200": {
            "description": "What was made, or why not.",
            "content": {
                "application/json": {
                    "schema": _schema(
                        *chain(
                            ("miztiik_event_processed", "msg", "resp"),
                            ("count", "last_processed_on"),
                        )
                    )
                }
            },
        }
    },
}
