"""The kernels that are called from Python, compiled for the one set of types they are called with.

Without that Numba would compile again, for seconds, when an array happens to be read-only. Arrays
that are only read are declared read-only, which takes both kinds.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, cast

from numba import typeof, types

from tidegate.events.body import find_elements
from tidegate.events.pack import fill, measure
from tidegate.events.scan import Out, plan, scan
from tidegate.schema import Schema

_compiling = Lock()


def warm_up() -> None:
    """Compile the kernels, or load them if that was done before on this machine.

    Takes some twenty seconds the first time and a fraction of a second after that. Done when the
    first `Decoder` is made, if not before. May be called by several threads.
    """
    with _compiling:
        for kernel, signature in _signatures():
            if not kernel.signatures:
                kernel.compile(signature)
                kernel.disable_compile()


def _signatures() -> list[tuple[Any, tuple[Any, ...]]]:
    bytes_, words = (types.Array(t, 1, "C", readonly=True) for t in (types.uint8, types.int64))
    out_bytes, out_words = types.Array(types.uint8, 1, "C"), types.Array(types.int64, 1, "C")
    grid = types.Array(types.int64, 2, "C")
    lengths, valid = types.Array(types.int32, 2, "C"), types.Array(types.uint8, 2, "C")
    named, type_of = cast(Any, types.NamedTuple), cast(Any, typeof)  # Numba types neither
    out = named((grid, lengths, valid, out_bytes, out_words), Out)
    example = plan(Schema.of([("id", "text")], id="id", event_time="id"), record_bytes_max=1)
    chosen = words
    return [
        (scan, (bytes_, words, words, type_of(example), out, out_bytes)),
        (measure, (lengths, valid, chosen, words, grid, grid)),
        (fill, (grid, lengths, valid, chosen, words, bytes_, bytes_, grid, grid, out_bytes)),
        (find_elements, (bytes_, types.int64, types.int64, grid)),
    ]
