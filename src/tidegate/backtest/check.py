"""The check of the current side: computed again, its answers are those that were stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.backtest.history import OFFSET, Decided
from tidegate.backtest.sides import Judged
from tidegate.decisions.decide import SEVERITY
from tidegate.rules.ruleset import Rows

_ACTIONS = pa.array([a.value for a in SEVERITY], pa.string())


@dataclass(frozen=True, slots=True)
class Checked:
    """How many stored decisions were compared and how many differ, the first by its offset."""

    compared: int = 0
    differing: int = 0
    first: int | None = None

    def __add__(self, other: Checked) -> Checked:
        firsts = [f for f in (self.first, other.first) if f is not None]
        return Checked(
            self.compared + other.compared,
            self.differing + other.differing,
            min(firsts, default=None),
        )


def check(decided: Decided, current: Judged, *, version: str) -> Checked:
    """The stored decisions of a version beside what its rules say now: action and rules hit.

    `decided` has a row for each event that was judged, null where nothing is stored.
    """
    rows = decided.rows
    own: Any = pc.equal(rows.column("version").combine_chunks(), pa.scalar(version))
    own = own.fill_null(False)  # noqa: FBT003 - a value, not a switch
    is_own: npt.NDArray[np.bool_] = own.to_numpy(zero_copy_only=False)
    compared = int(is_own.sum())
    if not compared:
        return Checked()
    action: Any = pc.index_in(rows.column("action").combine_chunks(), value_set=_ACTIONS)
    stored = action.fill_null(-1).to_numpy()
    differs = (stored != current.ranks) | _listed_otherwise(decided, current, len(stored))
    places = np.flatnonzero(differs & is_own)
    first = rows.column(OFFSET)[int(places[0])].as_py() if len(places) else None
    return Checked(compared, len(places), first)


def _listed_otherwise(decided: Decided, current: Judged, n: int) -> npt.NDArray[np.bool_]:
    """The rows whose stored rules are not those that are hit."""
    names = sorted({hit.rule.name for hit in current.hits})
    width = len(names) + 1
    rows, listed = _flat(decided.rules)
    at = pc.index_in(listed, value_set=pa.array(names, pa.string())).fill_null(len(names))
    stored = np.sort(rows * width + at.to_numpy())
    place = {name: i for i, name in enumerate(names)}
    hit = [h.rows * width + place[h.rule.name] for h in current.hits]
    found = np.sort(np.concatenate(hit)) if hit else np.empty(0, np.int64)
    differs = np.zeros(n, np.bool_)
    if not np.array_equal(stored, found):
        differs[_uneven(stored, found) // width] = True
    return differs


def _uneven(one: Rows, other: Rows) -> Rows:
    """The values that do not come equally often in both."""
    values, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    counts = [np.bincount(p, minlength=len(values)) for p in np.split(places, [len(one)])]
    uneven: Rows = values[counts[0] != counts[1]]
    return uneven


def _flat(lists: Any) -> tuple[Rows, pa.Array[Any]]:
    """The row of each element, and the elements."""
    rows: Any = pc.list_parent_indices(lists)
    return rows.to_numpy().astype(np.int64), lists.flatten()


def failed_features(rules: Any, features: Sequence[str], reasons: Any) -> Mapping[str, Rows]:
    """The rows whose stored decision says that a feature could not be computed.

    `reasons()` gives the reasons that go with `rules`; they are read only where a rule listed has
    the name of a feature.
    """
    rows, listed = _flat(rules)
    at: Any = pc.index_in(listed, value_set=pa.array(features, pa.string()))
    suspect = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    if not len(suspect):
        return {}
    told = reasons().flatten().take(pa.array(suspect)).to_pylist()
    found: dict[str, list[int]] = {}
    for place, reason in zip(suspect, told, strict=True):
        name = features[at[int(place)].as_py()]
        if reason.startswith(f"feature `{name}` could not be computed: "):
            found.setdefault(name, []).append(int(rows[place]))
    return {n: np.array(found[n], np.int64) for n in features if n in found}
