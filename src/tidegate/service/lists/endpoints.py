"""`/v1/lists`: which lists there are, what is on them, and changing that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from tidegate.access.pii import hidden_text
from tidegate.errors import RequestError
from tidegate.hiding import Hiding
from tidegate.lists.desk import Changed, ListDesk, ValueEntry
from tidegate.service.admin import author_of, decoded, takes, worked
from tidegate.service.answer import json_response
from tidegate.service.description import errors, shown
from tidegate.service.events.body import Disconnected
from tidegate.service.state import State

VALUES_MAX = 100_000
SHOWN_MAX = 10_000


class ListRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values to be put on a list, for events before `until`, or for all that follow."""

    values: Annotated[list[str | int | float | bool], msgspec.Meta(max_length=VALUES_MAX)]
    until: str | None = None
    reason: str = ""


class ListShown(msgspec.Struct, frozen=True):
    """A list and the type of its values."""

    name: str
    type: str


class ListsShown(msgspec.Struct, frozen=True):
    """All lists."""

    lists: list[ListShown]


class EntryShown(msgspec.Struct, frozen=True):
    """A value on a list: for events before `until`, or for all; who put it there, and why."""

    value: str
    until: datetime | None
    reason: str
    author: str
    at: datetime


class EntriesShown(msgspec.Struct, frozen=True):
    """What is on a list, by value; `more` says that there is more behind the last one."""

    name: str
    type: str
    count: int
    entries: list[EntryShown]
    more: bool


class ListChanged(msgspec.Struct, frozen=True):
    """What was changed; it counts for events behind `offset`."""

    name: str
    values: int
    offset: int


BODIES = (ListRequest, ListShown, ListsShown, EntryShown, EntriesShown, ListChanged)
_ADD = msgspec.json.Decoder(ListRequest)
_Name = Annotated[str, Path(description="The list's name.")]


class _Desk:
    """What the routes do, in threads."""

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def lists(self) -> ListDesk:
        pipeline = self._state.pipeline
        return ListDesk(pipeline.project, clock=pipeline.clock, pipeline=pipeline)

    def all(self) -> ListsShown:
        return ListsShown([ListShown(n, str(t)) for n, t in self.lists.declared.items()])

    def show(self, name: str, limit: int, skip: int, hiding: Hiding | None) -> EntriesShown:
        lists = self.lists
        found = lists.entries(name)
        part = found[skip : skip + limit]
        more = skip + limit < len(found)
        type_ = str(lists.declared[name])
        return EntriesShown(name, type_, len(found), [_shown(e, hiding) for e in part], more)

    def add(self, name: str, asked: ListRequest, author: str) -> ListChanged:
        values = [_text(v) for v in asked.values]
        until, reason = asked.until, asked.reason
        return _changed(
            name, self.lists.add(name, values, until=until, reason=reason, author=author)
        )

    def remove(self, name: str, values: list[str], reason: str, author: str) -> ListChanged:
        return _changed(name, self.lists.remove(name, values, reason=reason, author=author))


def lists_routes(state: State) -> APIRouter:
    """`/v1/lists` and `/v1/lists/{name}`."""
    router, desk = APIRouter(tags=["lists"]), _Desk(state)

    @router.get("/v1/lists", summary="All lists", responses=shown(ListsShown) | errors(503))
    async def all_lists() -> Response:
        """The lists that the project declares, with the types of their values."""
        return json_response(await worked(state.lookups, desk.all))

    @router.get(
        "/v1/lists/{name}",
        summary="What is on a list",
        responses=shown(EntriesShown) | errors(404, 422, 503),
    )
    async def show_list(
        request: Request,
        name: _Name,
        limit: Annotated[int, Query(ge=1, le=SHOWN_MAX, description="At most so many.")] = 1_000,
        skip: Annotated[int, Query(ge=0, le=1 << 40, description="How many to leave out.")] = 0,
    ) -> Response:
        """By value, ended ones too; pseudonyms where a column is `pii`, unless the key has that."""
        hiding = state.hiding_from(request.state.caller)
        work = lambda: desk.show(name, limit, skip, hiding)  # noqa: E731 - one line, one use
        return json_response(await worked(state.lookups, work))

    @router.post(
        "/v1/lists/{name}",
        summary="Put values on a list",
        responses=shown(ListChanged) | errors(400, 404, 413, 415, 429, 503, 507),
        openapi_extra=takes("ListRequest"),
    )
    async def add_values(request: Request, name: _Name) -> Response:
        """Answered when events are decided with them; a value that is there gets the new end."""
        state.check()
        author = author_of(request)
        try:
            asked = await decoded(request, state, _ADD)
        except Disconnected:
            return Response()
        return json_response(await worked(state.lookups, lambda: desk.add(name, asked, author)))

    @router.delete(
        "/v1/lists/{name}",
        summary="Take values off a list",
        responses=shown(ListChanged) | errors(400, 404, 422, 429, 503, 507),
    )
    async def remove_values(
        request: Request,
        name: _Name,
        value: Annotated[list[str], Query(description="A value; may be given again.")],
        reason: Annotated[str, Query(description="Why, in words.")] = "",
    ) -> Response:
        """Answered when events are decided without them; what is not there changes nothing."""
        state.check()
        author = author_of(request)
        work = lambda: desk.remove(name, value, reason, author)  # noqa: E731 - one line, one use
        return json_response(await worked(state.lookups, work))

    return router


def _text(value: str | float | bool) -> str:  # noqa: FBT001 - a value, not a switch
    """A value as it would be written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _shown(e: ValueEntry, hiding: Hiding | None) -> EntryShown:
    until = None if e.until is None else e.until.replace(tzinfo=UTC)
    value = hidden_text(e.value, hiding)
    return EntryShown(value, until, e.reason, e.author, e.at.replace(tzinfo=UTC))


def _changed(name: str, found: Changed) -> ListChanged:
    if not found.finished:
        message = "the change is safe in the log, but not decided that far yet"
        raise RequestError(message, code="not_yet")
    return ListChanged(name, found.values, found.offset)
