"""The state of lists: what is on each, and until when; a pure function of the log.

Entries stay when a version of the project takes over from another, even one that does not know the
list: they are kept as text, as the log has them, and read anew where a list has another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.controls import ListRecord
from tidegate.lists.sieve import Sieve
from tidegate.lists.values import TEXTUAL, Key, canonical, key, keys
from tidegate.schema import ColumnType, Kind

Integers = npt.NDArray[np.int64]

FOREVER = 2**62
TEXT = ColumnType(Kind.TEXT)
# How far the stream's newest event time must have passed an entry's end for it to be forgotten. An
# event that comes later still, from before that end, does not find it any more.
FORGOTTEN_AFTER_US = 30 * 86_400_000_000
_SWEPT_FROM = 1_024  # entries; fewer are not worth looking through

_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int])


class Lists:
    """All lists of a stream. Not thread-safe."""

    def __init__(self, declared: Mapping[str, ColumnType]) -> None:
        self._members: dict[str, Members] = {}
        self.use(declared)

    def use(self, declared: Mapping[str, ColumnType]) -> None:
        """Go on with the lists of another version; what is on them stays."""
        for name in {*declared, *self._members}:
            self._of(name).use(declared.get(name))

    def apply(self, change: ListRecord, *, newest: int) -> None:
        """Take a change over; `newest` is the newest event time before it, UTC microseconds."""
        members = self._of(change.name)
        if change.change == "add":
            members.add(change.values, FOREVER if change.until is None else change.until)
        else:
            members.remove(change.values)
        members.sweep(newest)

    def ask(
        self, name: str, values: pa.Array[Any], *, times: Integers, newest: Integers
    ) -> pa.BooleanArray:
        """Whether each value is on a list for an event of that time; null for null.

        `newest` is the newest event time up to and with each event.
        """
        return self._of(name).ask(values, times=times, newest=newest)

    def __len__(self) -> int:
        return sum(len(members) for members in self._members.values())

    @property
    def entries(self) -> dict[str, int]:
        """How many entries each list has, those that have ended among them."""
        return {name: len(members) for name, members in self._members.items()}

    def snapshot(self) -> dict[str, bytes]:
        """The state, to be stored; what did not change since the last time is not packed again."""
        return {name: m.snapshot() for name, m in self._members.items() if len(m)}

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take over what `snapshot` gave."""
        for name in {*state, *self._members}:
            self._of(name).restore(state.get(name))

    def _of(self, name: str) -> Members:
        return self._members.setdefault(name, Members())


class Members:
    """One list: for each value, as text, the event time before which it counts."""

    def __init__(self) -> None:
        self._type: ColumnType | None = None
        self._until: dict[str, int] = {}
        self._keys: dict[Key, int] | None = None  # by key, where the text is not the key itself
        self._packed: bytes | None = None
        self._swept = _SWEPT_FROM
        self._sieve: Sieve | None = None  # of the keys, made when first of use

    def __len__(self) -> int:
        return len(self._until)

    def use(self, type_: ColumnType | None) -> None:
        """Take the values as of a type from now on; None where no version says which."""
        if type_ is None or type_ == self._type:
            return
        self._type = type_
        # Two texts of one value may come together: the longer counts, whatever their order.
        merged: dict[str, int] = {}
        for text, until in self._until.items():
            text = self._text(text)
            merged[text] = max(until, merged.get(text, until))
        self._until, self._packed = merged, None
        self._rebuild()

    def _rebuild(self) -> None:
        self._keys = self._sieve = None
        if self._type is not None and self._type.kind not in TEXTUAL:
            self._keys = {}
            for text, until in self._until.items():
                self._put(text, until)

    def _text(self, text: str) -> str:
        """The value's one text; what is no value of the type stays as it is, and is never met."""
        try:
            return text if self._type is None else canonical(text, self._type)
        except ValueError:
            return text

    def _numbers(self, texts: Iterable[str]) -> list[Key]:
        """The keys of texts that have one."""
        found = []
        for text in texts:
            with suppress(ValueError):
                found.append(key(text, self._type or TEXT))
        return found

    def _put(self, text: str, until: int | None) -> None:
        """Let a text's key, if it has one beside itself, count until then, or no more."""
        if self._keys is None or self._type is None:
            return
        try:
            found = key(text, self._type)
        except ValueError:
            return
        if until is None:
            self._keys.pop(found, None)
        else:
            self._keys[found] = until

    def add(self, values: Iterable[str], until: int) -> None:
        """Put values on the list, or give those that are there another end."""
        texts = [self._text(value) for value in values]
        for text in texts:
            self._until[text] = until
            self._put(text, until)
        self._packed = None
        if self._sieve is not None:
            found = texts if self._keys is None else self._numbers(texts)
            self._sieve.add(pa.array(found, pa.string() if self._keys is None else pa.int64()))

    def remove(self, values: Iterable[str]) -> None:
        """Take values off the list; those that are not there change nothing."""
        for value in values:
            text = self._text(value)
            if self._until.pop(text, None) is not None:
                self._put(text, None)
        self._packed = None

    def sweep(self, newest: int) -> None:
        """Let go of what no event can find any more, now and then; answers do not change by it."""
        if len(self._until) < self._swept:
            return
        for text in [t for t, u in self._until.items() if u + FORGOTTEN_AFTER_US <= newest]:
            del self._until[text]
            self._put(text, None)
            self._packed = None
        self._swept = max(_SWEPT_FROM, 2 * len(self._until))

    def ask(self, values: pa.Array[Any], *, times: Integers, newest: Integers) -> pa.BooleanArray:
        """Whether each value counts for an event of that time; null for null."""
        known: Mapping[Any, int] = self._until if self._keys is None else self._keys
        if not known or values.null_count == len(values):
            found = pa.array(np.zeros(len(values), dtype=np.bool_))
        else:
            until = self._ends(known, keys(values))
            on = times < until
            if on.any():
                # The end as it is forgotten, not as it was swept: when that is changes nothing.
                on &= (until == FOREVER) | (newest < until + FORGOTTEN_AFTER_US)
            found = pa.array(on)
        if not values.null_count:
            return found
        missing = pa.scalar(None, pa.bool_())
        asked: pa.BooleanArray = pc.if_else(values.is_valid(), found, missing)
        return asked

    def _ends(self, known: Mapping[Any, int], wanted: pa.Array[Any]) -> Integers:
        """For each key the event time before which it counts; a time before all others if never."""
        if len(wanted) < _SIEVED_VALUES or len(known) < _SIEVED_ENTRIES:
            return _ends(known, wanted.to_pylist())
        if self._sieve is None or self._sieve.is_full:
            self._sieve = Sieve(wanted.type)
            self._sieve.fill(known)
        rows: Integers = np.flatnonzero(self._sieve.passes(wanted))
        until = np.full(len(wanted), _NEVER, dtype=np.int64)
        until[rows] = _ends(known, wanted.take(pa.array(rows, pa.int64())).to_pylist())
        return until

    def snapshot(self) -> bytes:
        """The entries, packed."""
        if self._packed is None:
            self._packed = _encode(self._until)
        return self._packed

    def restore(self, packed: bytes | None) -> None:
        """Take over what `snapshot` gave; nothing for None."""
        self._until = {} if packed is None else _decode.decode(packed)
        self._packed, self._swept = packed, _SWEPT_FROM
        self._rebuild()


def _ends(known: Mapping[Any, int], wanted: Sequence[Key | None]) -> Integers:
    """For each key the event time before which it counts; a time before all others if never."""
    return np.array([known.get(k, _NEVER) for k in wanted], dtype=np.int64)


_NEVER = -(2**63)
_SIEVED_VALUES, _SIEVED_ENTRIES = 256, 4_096  # fewer are looked up one by one
