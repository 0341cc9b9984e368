"""Every error that Tidegate raises, by what the caller does next.

TidegateError
├── InputError              mend what was given, then call again
│   ├── ProjectError        the project's files, each mistake with file:line:column
│   ├── RequestError        one request or call to a door
│   └── QueryError          the SQL of a query
├── TransientError          the same call may go through later
│   ├── OverloadedError     a queue is full; carries when to come back
│   ├── StorageFullError    the disk is full or read-only; nothing was acknowledged
│   ├── LockedError         another process holds the data folder
│   └── UnreachableError    an outside system does not answer
└── DamageError             stored data is torn or corrupted; carries the offset
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TidegateError(Exception):
    """Root of all errors raised on purpose."""


class InputError(TidegateError):
    """What was given is wrong; the same call will fail again."""


class RequestError(InputError):
    """A request or call that a door refuses; carries a stable `code` for machines."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class QueryError(InputError):
    """A query that cannot be parsed or run."""


class TransientError(TidegateError):
    """Nothing is wrong with what was given; the same call may go through later."""


class OverloadedError(TransientError):
    """A bounded queue is full; come back after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageFullError(TransientError):
    """The disk is full or cannot be written; nothing of the call was acknowledged."""


class LockedError(TransientError):
    """Another process holds the data folder."""


class UnreachableError(TransientError):
    """An outside system (object store, broker, database) refuses or does not answer."""


class DamageError(TidegateError):
    """Stored data is torn or corrupted; carries the log offset where it begins, if known."""

    def __init__(self, message: str, *, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a project's files, pointing at its place.

    `line` and `column` count from 1; `column` counts characters. `text` is the line itself.
    The message begins in lower case, ends without a full stop and quotes names in backticks.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None
    text: str = ""

    def __str__(self) -> str:
        shown = [f"{self.file}:{self.line}:{self.column}: {self.message}"]
        if self.text:
            # Tabs are kept in the margin so that the caret stands under its character.
            indent = "".join("\t" if c == "\t" else " " for c in self.text[: self.column - 1])
            shown += [f"    {self.text}", f"    {indent}^"]
        if self.hint:
            shown.append(f"    hint: {self.hint}")
        return "\n".join(shown)


class ProjectError(InputError):
    """The project's files hold one or more mistakes; `problems` has them all, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(str(p) for p in self.problems))
