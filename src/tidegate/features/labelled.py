"""Features over the label column, whose value in an event may become known long after the event.

A window function that reads the column must be able to find the entry of an event again and to
compute anew what it took of it. It finds it by key, event time and log offset, so that the offset
is kept with each entry; it computes it from the declared columns, since what other windows gave
when the event came is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlglot import expressions as exp

from tidegate.features.binding import Binder, Hidden, WindowCall
from tidegate.features.problems import Problems


def labelled_columns(hidden: Mapping[str, Hidden], label: str) -> frozenset[str]:
    """The label column, and the hidden columns that are computed from it."""
    return frozenset({label, *(n for n in hidden if label in _direct(hidden, [n]))})


def check_labels(binder: Binder, select: exp.Select, problems: Problems, label: str) -> None:
    """Note each feature with a window function that labels could not reach."""
    places = {item.alias: item for item in select.expressions}
    for feature in binder.features:
        read = feature.expression.columns if feature.expression else {feature.column or ""}
        for call in _calls(binder, read):
            found = _obstacle(binder, call, label)
            if found is not None:
                problems.add(places[feature.name], found[0], hint=found[1])


def _calls(binder: Binder, names: Iterable[str]) -> Iterator[WindowCall]:
    """The calls behind columns, through all layers."""
    waiting, seen = list(names), set(names)
    while waiting:
        name = waiting.pop()
        call = binder.calls.get(name)
        read: frozenset[str] = frozenset()
        if call is not None:
            yield call
            read = call.columns
        elif name in binder.hidden:
            read = binder.hidden[name].columns
        waiting += read - seen
        seen |= read


def _obstacle(binder: Binder, call: WindowCall, label: str) -> tuple[str, str] | None:
    """Why a label could not reach the entries of a call, and what may be written instead."""
    keys = _direct(binder.hidden, call.keys)
    if label in keys:
        message = f"`{label}` takes labels, so that windows cannot be partitioned by it"
        return message, f"leave it out of PARTITION BY, and take FILTER (WHERE {label} …)"
    parts = [[c] for c in (call.argument, call.filter) if c is not None]
    read = [d for d in (_direct(binder.hidden, part) for part in parts) if label in d]
    if read and any(d & binder.calls.keys() for d in (keys, *read)):
        message = f"`{label}` takes labels, and cannot be read together with windows' values here"
        return message, "what other windows gave is not kept; read columns of the stream alone"
    return None


def _direct(hidden: Mapping[str, Hidden], names: Iterable[str]) -> frozenset[str]:
    """The declared columns and calls that columns are made of, through hidden columns alone."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in hidden:
            waiting += hidden[name].columns
        else:
            found.add(name)
    return frozenset(found)
