"""API keys made, listed and revoked by whoever has the scope `admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from tidegate.access import ApiKey, Caller
from tidegate.access.expiry import expiry_us
from tidegate.errors import RequestError
from tidegate.service.answer import json_response
from tidegate.service.description import errors, shown
from tidegate.service.errors import Refusal
from tidegate.service.events.body import Disconnected, receive_body
from tidegate.service.state import State

_BODY_BYTES_MAX = 16 << 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_T = TypeVar("_T")


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made; `expires` is a length as in `90d`, or a time."""

    name: str
    scopes: list[str]
    expires: str | None = None


class KeyShown(msgspec.Struct, frozen=True):
    """A key without its secret; `state` is `active`, `expired` or `revoked`."""

    prefix: str
    name: str
    scopes: list[str]
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class KeyMade(msgspec.Struct, frozen=True):
    """A new key: `key` is shown this once and kept nowhere."""

    key: str
    prefix: str
    name: str
    scopes: list[str]
    expires_at: datetime | None


class KeyList(msgspec.Struct, frozen=True):
    """All keys, newest first."""

    keys: list[KeyShown]


BODIES = (KeyRequest, KeyShown, KeyMade, KeyList)
_DECODE = msgspec.json.Decoder(KeyRequest).decode
_REQUEST = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/KeyRequest"}}},
    }
}


class _Desk:
    """What the routes do, in threads: the database and the log both may make them wait."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._state.lookups, work)

    def list(self) -> KeyList:
        now = self._state.pipeline.clock.now()
        return KeyList([_shown(key, now) for key in self._state.access.keys().all()])

    def add(self, asked: KeyRequest, caller: Caller) -> KeyMade:
        if "pii" in asked.scopes and "pii" not in caller.scopes:
            message = "only who has the scope `pii` can give it away; `tidegate keys` can as well"
            raise Refusal(403, "forbidden", message)
        now = self._state.pipeline.clock.now()
        until = None if asked.expires is None else expiry_us(asked.expires, now=now)
        key, text = self._state.access.keys().add(
            asked.name, scopes=asked.scopes, author=_author(caller), expires_us=until
        )
        self._state.note_keys()
        return KeyMade(text, key.prefix, key.name, [*key.scopes], _moment(key.expires_us))

    def revoke(self, prefix: str, caller: Caller) -> KeyShown:
        try:
            key = self._state.access.keys().revoke(prefix, author=_author(caller))
        except RequestError as error:
            raise Refusal(404, error.code, str(error)) from error
        self._state.note_keys()
        return _shown(key, self._state.pipeline.clock.now())


def keys_routes(state: State) -> APIRouter:
    """`/v1/keys` and `/v1/keys/{prefix}`."""
    router, desk = APIRouter(tags=["keys"]), _Desk(state)

    @router.get("/v1/keys", summary="All keys", responses=shown(KeyList) | errors(503))
    async def list_keys() -> Response:
        """The keys with their scopes and times, without their secrets."""
        return json_response(await desk.run(desk.list))

    @router.post(
        "/v1/keys",
        summary="Make a key",
        status_code=201,
        responses=shown(KeyMade, status=201) | errors(400, 413, 429, 503, 507),
        openapi_extra=_REQUEST,
    )
    async def add_key(request: Request) -> Response:
        """The answer holds the key itself, once and never again."""
        state.check()
        caller = request.state.caller
        try:
            asked = await _asked(request, state)
        except Disconnected:
            return Response()
        made = await desk.run(lambda: desk.add(asked, caller))
        response = json_response(made, status=201)
        response.headers["cache-control"] = "no-store"
        return response

    @router.delete(
        "/v1/keys/{prefix}", summary="Revoke a key", responses=shown(KeyShown) | errors(404, 503)
    )
    async def revoke_key(
        request: Request, prefix: Annotated[str, Path(description="The key's prefix.")]
    ) -> Response:
        """Ends the key for good, within a second on every server of the installation."""
        state.check()
        caller = request.state.caller
        return json_response(await desk.run(lambda: desk.revoke(prefix, caller)))

    return router


async def _asked(request: Request, state: State) -> KeyRequest:
    with state.budget.share() as share:
        body = await receive_body(request.receive, bytes_max=_BODY_BYTES_MAX, share=share)
    try:
        return _DECODE(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "bad_request", f"the body is no key request: {error}") from error


def _author(caller: Caller) -> str:
    return f"{caller.name} ({caller.prefix})" if caller.prefix else caller.name


def _shown(key: ApiKey, now: int) -> KeyShown:
    return KeyShown(
        prefix=key.prefix,
        name=key.name,
        scopes=[*key.scopes],
        state=key.state(now),
        created_at=_EPOCH + timedelta(microseconds=key.created_us),
        created_by=key.created_by,
        expires_at=_moment(key.expires_us),
        last_used_at=_moment(key.last_used_us),
        revoked_at=_moment(key.revoked_us),
    )


def _moment(time_us: int | None) -> datetime | None:
    return None if time_us is None else _EPOCH + timedelta(microseconds=time_us)
