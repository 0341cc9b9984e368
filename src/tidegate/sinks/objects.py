"""Object storage, or a folder: rows become files, under names made of the rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from re import Pattern
from typing import Protocol

import pyarrow as pa

from tidegate.errors import InputError
from tidegate.project.sinks import ObjectsSink as ObjectsSettings
from tidegate.sinks.capture import CaptureLayout
from tidegate.sinks.contract import Delivery
from tidegate.sinks.courier import Pace
from tidegate.sinks.documents import DocumentLayout
from tidegate.sinks.store import File, Store, open_store

_FILES_MAX = 1_024  # of one delivery, which is held until all of them are safe

# What the store's producer sent along with each event.
PROPERTIES = ("event_type", "priority_shipping", "is_return")


class Layout(Protocol):
    """How rows become files, and files rows."""

    folder: str
    pattern: Pattern[str]

    def files(self, delivery: Delivery) -> Iterable[File]:
        """The files of a delivery: their keys and contents."""

    def read(self, key: str, content: bytes, /) -> pa.Table:
        """The `event_id` and `log_offset` of the rows in a file."""


class Objects:
    """The sink for object storage (see `sinks/contract.py` for its promises)."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout

    @classmethod
    def open(
        cls,
        settings: ObjectsSettings,
        *,
        columns: Sequence[str],
        id_column: str,
        folder: Path,
        environment: Mapping[str, str],
        properties: Sequence[str] = PROPERTIES,
    ) -> Objects:
        """The sink for these settings; nothing is connected to yet.

        `columns` are those of the feed's rows, `id_column` is the one with the event's id. A `url`
        that is a path lies below `folder`. Secrets are read from `environment`.
        Raises: InputError for a path that does not fit the rows, a variable that is not set, or a
        kind of URL for which something must be installed.
        """
        try:
            layout = layout_of(
                settings, columns=columns, id_column=id_column, properties=properties
            )
        except ValueError as error:
            raise InputError(f"sink `{settings.name}`: {error}") from error
        store = open_store(
            settings.url,
            folder=folder,
            options=settings.options,
            secrets=_secrets(settings, environment),
            timeout_seconds=settings.timeout_us / 1e6,
        )
        return cls(store, layout)

    def write(self, delivery: Delivery) -> None:
        """Put the rows where they belong; repeatable. Raises: as the store."""
        self._store.put(self._layout.files(delivery))

    def delivered(self) -> Iterator[pa.Table]:
        """Tables of `event_id` and `log_offset`, one for each file that the store holds.

        Files that are not named like this sink's are left alone. Raises: as the store.
        """
        keys = self._store.keys(self._layout.folder)
        mine = [key for key in keys if self._layout.pattern.fullmatch(key)]
        for key, content in self._store.get(mine):
            yield self._layout.read(key, content)

    def close(self) -> None:
        """Release connections; closing twice is fine."""
        self._store.close()


def layout_of(
    settings: ObjectsSettings,
    *,
    columns: Sequence[str],
    id_column: str,
    properties: Sequence[str] = PROPERTIES,
) -> Layout:
    """How this sink lays out its files. Raises: ValueError, with a message fit for a user."""
    if settings.format != "capture":
        return DocumentLayout(
            settings.path, columns=columns, id_column=id_column, form=settings.format
        )
    return CaptureLayout(
        settings.path,
        columns=columns,
        id_column=id_column,
        namespace=settings.namespace,
        event_hub=settings.event_hub,
        partitions=settings.partitions,
        properties=properties,
    )


def pace_of(settings: ObjectsSettings) -> Pace:
    """When this sink delivers and how it waits failures out."""
    # Where each event is a file of its own, a delivery holds as many names and contents as rows.
    rows_max = _FILES_MAX if settings.format == "event" else settings.rows_max
    return Pace(
        every_us=settings.every_us,
        rows_max=min(rows_max, settings.rows_max),
        bytes_max=settings.bytes_max,
        pause_min_us=settings.retry_pause_min_us,
        pause_max_us=settings.retry_pause_max_us,
    )


def _secrets(settings: ObjectsSettings, environment: Mapping[str, str]) -> dict[str, str]:
    for option, variable in settings.options_env.items():
        if variable not in environment:
            raise InputError(
                f"sink `{settings.name}`: the environment variable `{variable}`, named for"
                f" the option `{option}`, is not set"
            )
    return {option: environment[v] for option, v in settings.options_env.items()}
