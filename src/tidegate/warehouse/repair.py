"""Tables that a loss of power left torn, cut back to their last good version.

Everything in a table follows from the log, so cutting is safe: the offset of the table goes back
with its rows, and the engine replays from there. Nothing below the last durable version is touched
unless it is itself unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

_LAST = "_last_checkpoint"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to a table, in words; empty where all was well.

    `below_note` is set where versions were cut that had been durable, `readable` is false where
    no version is left, `lost` where that happened to a table that had been durable.
    """

    said: str = ""
    below_note: bool = False
    readable: bool = True
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """One entry of a Delta log: the files it adds, with their sizes, and those it removes."""

    version: int
    added: dict[str, int]
    removed: frozenset[str]


def mend(path: Path, name: str, *, durable_version: int) -> Repair:
    """Cut the table at `path` back to its last good version.

    Versions above `durable_version` are checked down to the rows of their files; of the older ones
    only that the log's entries can be read.
    """
    log = path / "_delta_log"
    if not log.is_dir():
        return Repair(lost=durable_version >= 0, readable=False, said=_gone(name, durable_version))
    base = _good_checkpoint(log)
    entries = {v: file for v, file in commit_files(log) if v > min(base, durable_version)}
    cut = _first_bad(path, entries, durable_version)
    if cut is None:
        return _unless_empty(name, entries, base)
    if cut <= base:
        base = _drop_checkpoints(log, cut)
    for version, file in commit_files(log):
        if version >= cut:
            file.unlink()
    left = cut - 1
    said = f"table `{name}` was torn at version {cut} and was cut back to version {left}"
    nothing = cut == min(entries) and base < 0
    return Repair(
        said,
        below_note=cut <= durable_version,
        readable=not nothing,
        lost=nothing and durable_version >= 0,
    )


def _gone(name: str, durable_version: int) -> str:
    return f"table `{name}` is gone and is made anew" if durable_version >= 0 else ""


def _unless_empty(name: str, entries: dict[int, Path], base: int) -> Repair:
    if entries or base >= 0:
        return Repair()
    return Repair(f"table `{name}` was never finished and is made anew", readable=False)


def commit_files(log: Path) -> Iterator[tuple[int, Path]]:
    """The commits of a Delta log by version, ascending."""
    for name in sorted(file.name for file in log.iterdir()):
        version, _, kind = name.partition(".")
        if kind == "json" and version.isdigit():
            yield int(version), log / name


def checkpoint_files(log: Path) -> Iterator[tuple[int, Path]]:
    """The Delta checkpoints of a log by version, ascending."""
    for name in sorted(file.name for file in log.iterdir()):
        version, _, kind = name.partition(".")
        if kind == "checkpoint.parquet":
            yield int(version), log / name


def read_commit(version: int, file: Path) -> Commit | None:
    """One entry of the log, or None where it cannot be read whole."""
    try:
        actions = [json.loads(line) for line in file.read_bytes().splitlines()]
        added = {unquote(a["add"]["path"]): int(a["add"]["size"]) for a in actions if "add" in a}
        removed = frozenset(unquote(a["remove"]["path"]) for a in actions if "remove" in a)
    except (ValueError, KeyError, TypeError):
        return None
    return Commit(version, added, removed) if actions else None


def _first_bad(path: Path, entries: dict[int, Path], durable_version: int) -> int | None:
    commits: list[Commit] = []
    cut: int | None = None
    for version, file in entries.items():
        commit = read_commit(version, file)
        if commit is None or (commits and version != commits[-1].version + 1):
            cut = version if not commits else commits[-1].version + 1
            break
        commits.append(commit)
    fresh = [c for c in commits if c.version > durable_version]
    # A file that a later commit removes may be gone; if that commit is cut it has to be there.
    while (bad := _first_bad_file(path, fresh)) is not None:
        cut = bad
        fresh = [c for c in fresh if c.version < cut]
    return cut


def _first_bad_file(path: Path, commits: list[Commit]) -> int | None:
    removed = frozenset[str]().union(*(c.removed for c in commits))
    for commit in commits:
        for name, size in commit.added.items():
            if name not in removed and not _whole(path / name, size):
                return commit.version
    return None


def _whole(file: Path, size: int | None = None) -> bool:
    try:
        if size is not None and file.stat().st_size != size:
            return False
        with pq.ParquetFile(file) as parquet:
            for _ in parquet.iter_batches():
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _good_checkpoint(log: Path) -> int:
    newest = -1
    for version, file in reversed(list(checkpoint_files(log))):
        if _whole(file):
            newest = version
            break
        _drop_checkpoints(log, version)
    if _hinted(log) != newest:
        (log / _LAST).unlink(missing_ok=True)  # only a hint: without it the folder is listed
    return newest


def _hinted(log: Path) -> int:
    try:
        return int(json.loads((log / _LAST).read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def _drop_checkpoints(log: Path, version: int) -> int:
    """Delete the Delta checkpoints at or above a version; returns the newest that is left."""
    left = -1
    for at, file in checkpoint_files(log):
        if at >= version:
            file.unlink()
        else:
            left = at
    (log / _LAST).unlink(missing_ok=True)
    return left
