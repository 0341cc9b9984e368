"""Which versions decided, since when, and by whom: the table of versions and the log's newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from tidegate.controls import VersionRecord
from tidegate.errors import RequestError
from tidegate.eventlog.contract import EventLog
from tidegate.logged import records_of
from tidegate.warehouse import checkpoint
from tidegate.warehouse.query import query

_LISTED = """
SELECT version, change, author, message, folder_version, "at", log_offset
FROM versions WHERE log_offset < $until ORDER BY log_offset
"""
_FILES = "SELECT files FROM versions WHERE log_offset = $offset"
_DECODE: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])
_PREFIX_MIN = 4
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - times are UTC without a zone


@dataclass(frozen=True, slots=True)
class Version:
    """A version that decided from `offset` on, since `at` (UTC), until the next one did.

    `change` is `start`, `publish`, `shadow` or `rollback`; `folder_version` is the version of the
    project's folder then.
    """

    version: str
    change: str
    author: str
    message: str
    folder_version: str
    at: datetime
    offset: int
    record: VersionRecord | None = field(default=None, repr=False, compare=False)


class History:
    """All versions in order of the log, oldest first; the last one decides."""

    def __init__(self, tables: Path, versions: Sequence[Version]) -> None:
        self._tables = tables
        self.versions = tuple(versions)

    @classmethod
    def of(cls, tables: Path, log: EventLog) -> History:
        """The history as tables and log tell it now."""
        noted = checkpoint.read(tables)
        position = noted.position if noted else 0
        listed: list[Version] = []
        if (tables / "versions" / "_delta_log").is_dir():
            rows = query(tables, _LISTED, parameters={"until": position}).arrow().to_pylist()
            listed = [Version(offset=row.pop("log_offset"), **row) for row in rows]
        return cls(tables, [*listed, *_unwritten(log, max(position, log.first_offset))])

    @property
    def running(self) -> Version:
        """The version that decides. Raises: RequestError if there is none yet."""
        if not self.versions:
            message = "no version is known yet: `tidegate run` or `tidegate publish` makes one"
            raise RequestError(message, code="no_version")
        return self.versions[-1]

    def files(self, version: Version) -> Mapping[str, str]:
        """The files that a version was made of."""
        if version.record is not None:
            return version.record.files
        found = query(self._tables, _FILES, parameters={"offset": version.offset}).arrow()
        return _DECODE.decode(found["files"][0].as_py())

    def find(self, named: str) -> Version:
        """The newest version of a name, of which the first few digits are enough.

        Raises: RequestError if there is none, or several begin so.
        """
        found = [v for v in self.versions if v.version == named]
        if not found and len(named) >= _PREFIX_MIN:
            found = [v for v in self.versions if v.version.startswith(named)]
        names = sorted({v.version for v in found})
        if len(names) > 1:
            message = f"`{named}` may be {' or '.join(f'`{n}`' for n in names)}: give more digits"
            raise RequestError(message, code="unknown_version")
        if not found:
            message = f"there is no version `{named[:64]}`; `tidegate versions` lists them"
            raise RequestError(message, code="unknown_version")
        return found[-1]

    def before(self) -> Version:
        """The version to go back to: what decided before the running one was published.

        What was taken back already is passed over, so that going back again goes further back.
        Raises: RequestError if there is none.
        """
        stack: list[Version] = []
        for version in self.versions:
            names = [v.version for v in stack]
            if version.change == "rollback" and version.version in names:
                del stack[names.index(version.version) + 1 :]
            elif not names or names[-1] != version.version:
                stack.append(version)
        if len(stack) < 2:
            raise RequestError("there is no version before the running one", code="no_version")
        return stack[-2]

    def base(self) -> Version:
        """The newest version that decided by itself, without another in its shadow."""
        plain = [v for v in self.versions if v.change != "shadow"]
        return plain[-1] if plain else self.running


def _unwritten(log: EventLog, position: int) -> list[Version]:
    """The versions in the log from an offset on, which the tables may not have yet."""
    found = []
    for entry in log.controls(position):
        at = _EPOCH + timedelta(microseconds=entry.ingest_time)
        for offset, record in records_of([entry]):
            if isinstance(record, VersionRecord):
                told = record.author, record.message, record.folder_version
                found.append(Version(record.version, record.change, *told, at, offset, record))
    return found
