"""`/v1/versions`: which versions decided, and publishing and taking back others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from tidegate.service.admin import author_of, decoded, takes, worked
from tidegate.service.answer import json_response
from tidegate.service.description import errors, shown
from tidegate.service.errors import Refusal
from tidegate.service.events.body import Disconnected
from tidegate.service.state import State
from tidegate.versions import Publication, Version, Versions

WAIT_SECONDS = 20.0  # for the switch, before the answer says that it is still to come


class VersionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to be published: all files of the project, by name."""

    files: dict[str, str]
    message: str = ""
    shadow: bool = False


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to go back to; the one before if absent."""

    version: str | None = None
    message: str = ""


class VersionShown(msgspec.Struct, frozen=True):
    """A version that decided from `offset` on, since `at`, until the next one did."""

    version: str
    change: str
    author: str
    message: str
    folder_version: str
    at: datetime
    offset: int


class VersionWithFiles(msgspec.Struct, frozen=True):
    """A version and the files that it was made of."""

    version: VersionShown
    files: dict[str, str]


class VersionList(msgspec.Struct, frozen=True):
    """All versions, oldest first; the last one decides."""

    versions: list[VersionShown]


class Published(msgspec.Struct, frozen=True):
    """What became of a publication; `offset` is null while the switch is still to come."""

    version: str
    change: str
    before: str | None
    offset: int | None
    seconds: float
    shadows: list[str]
    remarks: list[str]


BODIES = (
    *(VersionRequest, RollbackRequest, VersionShown, VersionWithFiles, VersionList, Published),
)
_PUBLISH = msgspec.json.Decoder(VersionRequest)
_ROLLBACK = msgspec.json.Decoder(RollbackRequest)
_Asked = TypeVar("_Asked")
_ERRORS = errors(400, 404, 409, 413, 415, 422, 429, 503, 507)


class _Desk:
    """What the routes do, one publication at a time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.pool = ThreadPoolExecutor(1, "publish")

    @property
    def versions(self) -> Versions:
        pipeline = self._state.pipeline
        return Versions(pipeline.project, clock=pipeline.clock, pipeline=pipeline)

    def publish(self, asked: VersionRequest, author: str) -> Published:
        found = self.versions.publish(
            files=asked.files,
            message=asked.message,
            author=author,
            shadow=asked.shadow,
            timeout_seconds=WAIT_SECONDS,
            progress=self._go_on,
        )
        return _published(found)

    def rollback(self, asked: RollbackRequest, author: str) -> Published:
        found = self.versions.rollback(
            asked.version,
            message=asked.message,
            author=author,
            timeout_seconds=WAIT_SECONDS,
            progress=self._go_on,
        )
        return _published(found)

    def _go_on(self, _: str) -> None:
        """Wait no longer where the server stops: the next one goes on with it."""
        self._state.check()

    def list(self) -> VersionList:
        return VersionList([_shown(v) for v in self.versions.all()])

    def one(self, named: str) -> VersionWithFiles:
        found, files = self.versions.one(named)
        return VersionWithFiles(_shown(found), dict(files))


def versions_routes(state: State) -> APIRouter:
    """`/v1/versions` and what is below."""
    router, desk = APIRouter(tags=["versions"]), _Desk(state)

    async def settled(
        request: Request,
        decoder: msgspec.json.Decoder[_Asked],
        work: Callable[[_Asked, str], Published],
    ) -> Response:
        state.check()
        author = author_of(request)
        try:
            asked = await decoded(request, state, decoder)
        except Disconnected:
            return Response()
        found = await worked(desk.pool, lambda: work(asked, author))
        return json_response(found, status=200 if found.offset is not None else 202)

    @router.get("/v1/versions", summary="All versions", responses=shown(VersionList) | errors(503))
    async def list_versions() -> Response:
        """The versions that decided, oldest first; the last one decides."""
        return json_response(await worked(state.lookups, desk.list))

    @router.post(
        "/v1/versions",
        summary="Publish a version",
        responses=shown(Published) | shown(Published, status=202) | _ERRORS,
        openapi_extra=takes("VersionRequest"),
    )
    async def publish(request: Request) -> Response:
        """Answered when the stream has switched, or with 202 while it is made ready."""
        return await settled(request, _PUBLISH, desk.publish)

    @router.post(
        "/v1/versions/rollback",
        summary="Go back to a version",
        responses=shown(Published) | shown(Published, status=202) | _ERRORS,
        openapi_extra=takes("RollbackRequest"),
    )
    async def rollback(request: Request) -> Response:
        """Goes back to the version that is named, or to the one before; answered as publishing."""
        return await settled(request, _ROLLBACK, desk.rollback)

    @router.get(
        "/v1/versions/{version}",
        summary="A version with its files",
        responses=shown(VersionWithFiles) | errors(404, 503),
    )
    async def one_version(
        version: Annotated[str, Path(description="The version, or its first few digits.")],
    ) -> Response:
        """The newest version of that name, with the files that it was made of."""
        if len(version) > 64:
            raise Refusal(404, "unknown_version", "a version has 12 digits")
        return json_response(await worked(state.lookups, lambda: desk.one(version)))

    return router


def _shown(v: Version) -> VersionShown:
    at = v.at.replace(tzinfo=UTC)
    return VersionShown(v.version, v.change, v.author, v.message, v.folder_version, at, v.offset)


def _published(found: Publication) -> Published:
    return Published(
        version=found.version,
        change=found.change,
        before=found.before,
        offset=found.offset,
        seconds=round(found.seconds, 3),
        shadows=[*found.shadows],
        remarks=[*found.remarks],
    )
