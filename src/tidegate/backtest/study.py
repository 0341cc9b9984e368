"""One piece of history after the other: read, judged by both sides, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidegate.backtest.amounts import Amounts
from tidegate.backtest.check import Checked, check, failed_features
from tidegate.backtest.history import OFFSET, Decided, Integers, Piece, Stored, places
from tidegate.backtest.labels import labels_of
from tidegate.backtest.listing import Listing
from tidegate.backtest.sides import Sides
from tidegate.backtest.tally import Tally, count
from tidegate.batches import counted
from tidegate.errors import RequestError
from tidegate.program import Program
from tidegate.rules.ruleset import Rows
from tidegate.tables import FEATURE_PREFIX

FEATURES = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be looked at, and how; `name` is the candidate's, for reports.

    Days are UTC, `until` is the first that no longer counts. `features` is the table with the
    stored features: that of the engine, or one that a replay made. `amount` and `label_column`
    name columns of the events. `with_hits` asks for the events that each rule hit.
    """

    name: str = "the candidate"
    first: date | None = None
    until: date | None = None
    features: str = FEATURES
    amount: str | None = None
    label_column: str | None = None
    with_hits: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was found in a piece.

    `versions` counts events by the version that decided on them, `lacking` those in files without
    a feature that is asked for, by feature; `without_features` those without a row of features.
    """

    tally: Tally
    checked: Checked
    versions: Counter[str]
    lacking: Counter[str]
    without_features: int
    changed: pa.Table
    hits: pa.Table | None


class Study:
    """What all pieces share: the tables as they stand, the rules, the labels. Thread-safe.

    Raises: InputError without tables; RequestError for columns that are not there, or features
    that are not stored.
    """

    def __init__(
        self, tables: Path, current: Program, candidate: Program, question: Question
    ) -> None:
        self.question = question
        self.current, self.candidate = current, candidate
        self.sides = Sides(current, candidate, tables)
        schema = current.schema
        self.amounts = Amounts(question.amount, schema)
        self.listing = Listing(schema, self.amounts.name)
        self.labels = labels_of(tables, current.project, question.label_column)
        self._time = schema.event_time
        self.events = Stored(tables / "events")
        self._all_features = [f.name for f in current.features.features] if current.features else []
        names = [name for name in self._all_features if name in self.sides.columns]
        self.stored = self._stored(tables, names) if names else None
        # The columns of features by their names: a replay renames some.
        self._features = _columns(self.stored, names)
        self._require(names)
        self._wanted = {schema.id, schema.event_time, *self.labels.columns}
        self._wanted |= self.sides.columns - set(names)
        self._wanted |= set() if self.amounts.name is None else {self.amounts.name}
        is_replay = self.stored is not None and "rules" in self.stored.schema.names
        self._decisions = (self.stored if is_replay else None) or Stored(tables / "decisions")
        opened = [t for t in (self.events, self.stored, self._decisions) if t is not None]
        days = self.events.days(question.first, question.until)
        self.pieces = list(self.events.pieces(days, end=min(t.end for t in opened)))

    def _stored(self, tables: Path, features: Sequence[str]) -> Stored:
        """The table with the features."""
        name = self.question.features
        if not (tables / name / "_delta_log").is_dir():
            raise self._missing(f"but there is no table `{name}`", features[0])
        return Stored(tables / name)

    def _require(self, features: Sequence[str]) -> None:
        """Refuse to go on without a feature that rules ask for."""
        for name in features:
            if self.stored is not None and self._features[name] not in self.stored.schema.names:
                raise self._missing(f"which the table `{self.stored.name}` does not have", name)

    def _missing(self, what: str, feature: str) -> RequestError:
        rules = (r for p in (self.candidate, self.current) for r in p.rules.rules)
        rule = next(r for r in rules if feature in r.when.columns)
        root = self.current.project.root
        return RequestError(
            f"rule `{rule.name}` asks for the feature `{feature}`, {what}: "
            f"`tidegate replay {root} --to tried` computes it, to be used with "
            "`--features tried`, or give `--replay`",
            code="no_feature",
        )

    def examine(self, piece: Piece) -> Part:
        """A piece read, judged and counted."""
        events, _ = self.events.read(piece, self._wanted)
        offsets = events.column(OFFSET).to_numpy()
        features, lacking, without = self._read_features(piece, offsets)
        decided, failed = self._read_decided(piece, offsets)
        columns = dict(zip(events.column_names, events.columns, strict=True)) | features
        batch = _batch({n: columns[n] for n in sorted(self.sides.columns)}, len(offsets))
        sides = self.sides.judge(batch, failed)
        known = self.labels.of(events, offsets)
        times = events.column(self._time).cast(pa.int64()).to_numpy()
        return Part(
            tally=count(times, known, sides, self.amounts, self.amounts.weights(events)),
            checked=check(decided, sides[0], version=self.current.version),
            versions=Counter(counted(decided.rows.column("version").drop_null())),
            lacking=lacking,
            without_features=without,
            changed=self.listing.changed(events, known, sides),
            hits=self.listing.hits(events, sides) if self.question.with_hits else None,
        )

    def _read_features(
        self, piece: Piece, offsets: Integers
    ) -> tuple[dict[str, pa.ChunkedArray[Any]], Counter[str], int]:
        """The features of events, how many events lie in files without one, how many have none."""
        if self.stored is None:
            return {}, Counter(), 0
        rows, lacking = self.stored.read(piece, self._features.values())
        at = places(rows.column(OFFSET).to_numpy(), offsets)
        rows = rows if at is None else rows.take(at)
        found = {name: rows.column(column) for name, column in self._features.items()}
        lacked = {n: lacking[c] for n, c in self._features.items() if c in lacking}
        return found, Counter(lacked), 0 if at is None else at.null_count

    def _read_decided(self, piece: Piece, offsets: Integers) -> tuple[Decided, Mapping[str, Rows]]:
        """What was decided on events, and which features could not be computed then."""
        decided = self._decisions.decided(piece, ["action", "version"])
        at = places(decided.rows.column(OFFSET).to_numpy(), offsets)
        if at is not None:
            decided = Decided(decided.rows.take(at), decided.rules.take(at))

        def reasons() -> Any:
            told = self._decisions.reasons(piece)
            return told if at is None else told.take(at)

        return decided, failed_features(decided.rules, self._all_features, reasons)


def _columns(stored: Stored | None, features: Sequence[str]) -> dict[str, str]:
    names = set() if stored is None else {*stored.schema.names}
    prefixed = {n: FEATURE_PREFIX + n for n in features}
    return {n: other if other in names else n for n, other in prefixed.items()}


def _batch(columns: Mapping[str, pa.ChunkedArray[Any]], rows: int) -> pa.RecordBatch:
    if not columns:  # no rules, or such as read no column
        return pa.RecordBatch.from_arrays([pa.nulls(rows)], names=["none"])
    arrays = [c.combine_chunks() for c in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))
