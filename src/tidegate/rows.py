"""Decisions by column, as they are told to whoever brought many events at a time."""

from __future__ import annotations

from typing import Any

import msgspec


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Decisions on some events, a list for each column; `names` are those of `features`.

    `offsets` are the events' places in the log.
    """

    event_ids: list[str]
    actions: list[str]
    scores: list[float | None]
    rules: list[list[dict[str, str]]]
    versions: list[str]
    offsets: list[int]
    names: list[str]
    features: list[list[Any]]
