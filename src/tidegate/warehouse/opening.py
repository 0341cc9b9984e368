"""Opening a folder of tables: what is torn is cut, what is missing made, how far all hold."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable

from tidegate.warehouse import checkpoint, evolution, repair
from tidegate.warehouse.checkpoint import Checkpoint
from tidegate.warehouse.faults import storage
from tidegate.warehouse.layout import Layout
from tidegate.warehouse.table import Table, stored_schema

_LOST = ".lost"


@dataclass(frozen=True, slots=True)
class Opened:
    """All tables of a project; every one holds everything below `position`."""

    tables: dict[str, Table]
    position: int
    repairs: list[str]


@dataclass(frozen=True, slots=True)
class _Found:
    """A table that was there: `floor` is how far it holds everything, None if it must join anew."""

    table: Table
    floor: int | None


def open_tables(root: Path, wanted: Mapping[str, Layout], *, retention_us: int) -> Opened:
    """The tables of `wanted` in folder `root`; the reasoning stands in `warehouse.py`."""
    note = checkpoint.read(root)
    mended = {name: _mend(root / name, name, note) for name in wanted}
    repairs = [r.said for r in mended.values() if r.said]
    there = [name for name in wanted if (root / name).exists()]
    found = {name: _found(root / name, wanted[name], note, mended[name]) for name in there}
    lost = any(r.lost for r in mended.values())
    floors = [f.floor for f in found.values() if f.floor is not None]
    position = 0 if lost else min(floors, default=0)
    tables = {}
    for name, layout in wanted.items():
        if name in found:
            tables[name] = found[name].table
            if found[name].floor is None:
                tables[name].stamp(position)
        else:
            path = root / name
            tables[name] = Table.create(path, layout, offset=position, retention_us=retention_us)
    return Opened(tables, position, repairs)


def join_table(path: Path, layout: Layout, *, position: int, retention_us: int) -> Table:
    """A table that holds, from now on, what lies beyond `position`: new, or away for a while."""
    if not (path / "_delta_log").is_dir():
        return Table.create(path, layout, offset=position, retention_us=retention_us)
    table = Table.open(path, layout)
    table.stamp(position)
    return table


def refuse_conflicts(root: Path, wanted: Mapping[str, Layout]) -> None:
    """Check that the tables in a folder, as they stand, can take rows of these layouts.

    Another process may be writing them. Raises: InputError naming table, column and both types.
    """
    for name, layout in wanted.items():
        if (root / name / "_delta_log").is_dir():
            with storage(f"reading table `{name}`"):
                stored = stored_schema(DeltaTable(str(root / name)))
            evolution.changes(layout, stored)


def _mend(path: Path, name: str, note: Checkpoint | None) -> repair.Repair:
    durable = -1 if note is None else note.versions.get(name, -1)
    done = repair.mend(path, name, durable_version=durable)
    if path.exists() and not done.readable:
        _put_aside(path, lost=done.lost)
    return done


def _put_aside(path: Path, *, lost: bool) -> None:
    """Make room for a new table; what once was whole is kept for whoever wants to look."""
    if not lost:
        shutil.rmtree(path)
        return
    aside = path.parent / _LOST / path.name
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    path.rename(aside)


def _found(path: Path, layout: Layout, note: Checkpoint | None, mended: repair.Repair) -> _Found:
    table = Table.open(path, layout)
    if note is None or mended.below_note:
        return _Found(table, table.offset)
    if layout.name not in note.versions:
        return _Found(table, None)
    table.durable_version = note.versions[layout.name]
    return _Found(table, max(table.offset, note.position))
