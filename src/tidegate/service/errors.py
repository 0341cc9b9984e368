"""The one shape of an error, on every route and status, and which error of Tidegate's has which."""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec
import structlog

from tidegate.errors import (
    DamageError,
    InputError,
    OverloadedError,
    QueryError,
    RequestError,
    StorageFullError,
    TidegateError,
    TransientError,
)

_log = structlog.get_logger()

_RETRY_SECONDS = 5
_TOO_LARGE = {"too_many_records", "body_too_large"}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong: a stable code for machines, a sentence for people, and which request."""

    code: str
    message: str
    request_id: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    error: ErrorDetail


class Refusal(TidegateError):  # noqa: N818 - what is raised is an answer
    """A request that is answered with an error; `retry_after_seconds` says when to come back."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        allow: str | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow
        self.challenge = challenge

    def body(self, request_id: str) -> bytes:
        """The answer's body, as JSON."""
        return _encode(ErrorBody(ErrorDetail(self.code, str(self), request_id)))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that go with the error, beyond those of the body."""
        headers = []
        if self.retry_after_seconds is not None:
            seconds = max(1, math.ceil(self.retry_after_seconds))
            headers.append((b"retry-after", b"%d" % seconds))
        if self.allow is not None:
            headers.append((b"allow", self.allow.encode("latin-1")))
        if self.challenge is not None:
            headers.append((b"www-authenticate", self.challenge.encode("latin-1")))
        return headers


def refusal_of(error: TidegateError) -> Refusal:
    """How an error of Tidegate's is answered.

    Messages that may name files of the machine, or quote events, stay inside.
    """
    match error:
        case Refusal():
            return error
        case OverloadedError():
            retry = error.retry_after_seconds
            return Refusal(429, "overloaded", f"{error}; try again", retry_after_seconds=retry)
        case StorageFullError():
            message = "the disk is full or cannot be written: nothing of this request was taken"
            return Refusal(507, "storage_full", message, retry_after_seconds=_RETRY_SECONDS)
        case TransientError():
            message = "what this request needs does not answer at present; try again"
            return Refusal(503, "unavailable", message, retry_after_seconds=_RETRY_SECONDS)
        case RequestError():
            return Refusal(413 if error.code in _TOO_LARGE else 400, error.code, str(error))
        case InputError() if not isinstance(error, QueryError):
            return Refusal(400, "bad_request", str(error))
        case _:
            # No request brings SQL of its own: damage and failed queries are the server's affair.
            place = {"offset": error.offset} if isinstance(error, DamageError) else {}
            _log.error("request_failed", error=type(error).__name__, **place)
            return internal_error()


def internal_error() -> Refusal:
    """The answer to what should not have happened; the reason is in the log of the server."""
    return Refusal(500, "internal_error", "the server failed on this request; its log says how")


def status_refusal(status: int, message: str | None = None, *, allow: str | None = None) -> Refusal:
    """The refusal for a bare HTTP status, as routing gives it.

    >>> status_refusal(404).code
    'not_found'
    """
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return Refusal(status, code, message or phrase.lower(), allow=allow)


_encode = msgspec.json.Encoder().encode
