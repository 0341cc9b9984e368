"""Two sides are equal when, and only when, they hold the same bag of keys."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tidegate.reconcile.comparison import HOUR, Comparison, Side, compare, merged

Keys = list[tuple[int, str | None]]

# Few values, so that equal bags, bags of equal size and repeated keys are all common.
KEYS: st.SearchStrategy[Keys] = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", "", None])), max_size=12
)


def hour_of(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Three offsets arrive in an hour."""
    return offsets // 3 * HOUR


def side(keys: Sequence[tuple[int, str | None]], *, batches: int = 1) -> Side:
    made = Side()
    for part in np.array_split(np.arange(len(keys)), batches):
        chosen = [keys[i] for i in part]
        offsets = np.array([k[0] for k in chosen], np.int64)
        made.add(offsets, pl.Series([k[1] for k in chosen], dtype=pl.String))
    return made


def compared(left: Keys, right: Keys) -> Comparison:
    return compare("stage", ("left", side(left)), ("right", side(right)), hour_of=hour_of)


def plain(keys: Sequence[object]) -> list[tuple[int, str | None]]:
    return [(k.log_offset, k.id) for k in keys]  # type: ignore[attr-defined]


@given(left=KEYS, right=KEYS)
def test_equal_if_and_only_if_the_bags_are(left: Keys, right: Keys) -> None:
    assert compared(left, right).equal == (Counter(left) == Counter(right))


@given(keys=KEYS, data=st.data())
def test_order_and_batches_do_not_matter(keys: Keys, data: st.DataObject) -> None:
    other = data.draw(st.permutations(keys))
    right = side(other, batches=data.draw(st.integers(1, 4)))
    assert compare("s", ("l", side(keys)), ("r", right), hour_of=hour_of).equal


@given(left=KEYS, right=KEYS)
def test_what_is_on_one_side_only_is_named(left: Keys, right: Keys) -> None:
    found = compared(left, right)
    assert set(plain(found.missing)) == set(Counter(left) - Counter(right))
    assert set(plain(found.unexpected)) == set(Counter(right) - Counter(left))


@given(left=KEYS, right=KEYS)
def test_each_hour_is_counted_and_judged_by_itself(left: Keys, right: Keys) -> None:
    for row in compared(left, right).hours:
        ours, theirs = (
            Counter(k for k in keys if k[0] // 3 * HOUR == row.hour) for keys in (left, right)
        )
        assert (row.left, row.right) == (ours.total(), theirs.total())
        assert row.equal == (ours == theirs)


@given(left=KEYS, right=KEYS, cuts=st.sets(st.integers(1, 9)))
def test_stretches_merged_are_the_whole(left: Keys, right: Keys, cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), 10]
    parts = [
        compared([k for k in left if a <= k[0] < b], [k for k in right if a <= k[0] < b])
        for a, b in pairwise(bounds)
    ]
    assert merged(parts) == compared(left, right)


def test_equal_counts_of_other_ids_are_told_apart() -> None:
    found = compared([(0, "a"), (1, "b")], [(0, "a"), (1, "c")])
    assert found.counts == (2, 2)
    assert plain(found.missing) == [(1, "b")]
    assert plain(found.unexpected) == [(1, "c")]


def test_many_keys_one_of_them_exchanged() -> None:
    keys: Keys = [(i, str(i)) for i in range(50_000)]
    assert compared(keys, keys[::-1]).equal
    assert not compared(keys, [*keys[:-1], (49_999, "0")]).equal
