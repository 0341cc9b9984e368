"""What the routes of administrators share: bodies as structs, work in threads, who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from tidegate.access import Caller
from tidegate.errors import ProjectError, RequestError
from tidegate.service.errors import Refusal
from tidegate.service.events.body import Envelope, receive_body
from tidegate.service.state import State

_T = TypeVar("_T")
_ABSENT = {"unknown_version", "unknown_list", "no_version"}
_CONFLICTS = {"runs_already", "replaced", "nothing_new"}


async def decoded(request: Request, state: State, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The body as the decoder's struct. Raises: Refusal, Disconnected."""
    bytes_max = state.settings.body_bytes_max
    envelope = Envelope(request.scope["headers"], bytes_max=bytes_max)
    if envelope.is_gzip:
        raise Refusal(415, "unsupported_encoding", "this body is to be sent as it is")
    with state.budget.share() as share:
        body = await receive_body(request.receive, bytes_max=bytes_max, share=share)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "bad_request", f"the body cannot be read: {error}") from error


async def worked(pool: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    """What a thread makes of it, with the statuses of its errors. Raises: Refusal."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    except ProjectError as error:
        raise Refusal(422, "project_mistakes", str(error)) from error
    except RequestError as error:
        if error.code in _ABSENT:
            raise Refusal(404, error.code, str(error)) from error
        if error.code in _CONFLICTS:
            raise Refusal(409, error.code, str(error)) from error
        raise


def author_of(request: Request) -> str:
    """The name of the key, and its prefix, of whoever asks."""
    caller: Caller = request.state.caller
    return f"{caller.name} ({caller.prefix})" if caller.prefix else caller.name


def takes(name: str) -> dict[str, Any]:
    """The description of a body with the schema of a name."""
    schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}
