"""The column that takes labels must be one that can."""

from __future__ import annotations

from tidegate.project.places import Path
from tidegate.project.reader import Reader
from tidegate.project.settings import Labels, Stream
from tidegate.project.values import suggestion
from tidegate.schema import Kind

KINDS = (Kind.BIGINT, Kind.BOOLEAN, Kind.DOUBLE, Kind.TEXT)


def check_labels(reader: Reader, labels: Labels, stream: Stream) -> None:
    """The column is one of the stream's, of a fit type, and neither its id nor its time."""
    name, path = labels.column, ("labels", "column")
    if name is None:
        return
    column = stream.schema.by_name.get(name)
    if column is None:
        hint = suggestion(name, stream.schema.names)
        reader.refuse(path, f"`column` names no column: `{name}`", hint=hint, position=0)
    elif name in (stream.id, stream.event_time):
        reader.refuse(path, f"`{name}` tells events apart or when they were; it takes no labels")
    elif column.type.kind not in KINDS:
        place: Path = ("stream", "columns", name)
        fit = ", ".join(f"`{kind}`" for kind in KINDS)
        reader.refuse(place, f"`{name}` takes labels: it must be one of {fit}, not `{column.type}`")
