"""Text out of json columns, by simple paths: keys and places in arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from tidegate.sql.functions.signature import Function, Signature
from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import JSON, NULL, TEXT, Type

_STEP = re.compile(r'\.([A-Za-z_]\w*)|\."([^"\\]+)"|\[(\d+)\]')


def path_of(written: str) -> str | None:
    """The path in Polars' spelling; none where it is more than keys and places.

    >>> path_of('$.a."b c"[2]')
    "$['a']['b c'][2]"
    """
    if not written.startswith("$"):
        return None if re.search(r"['\\/*]", written) else f"$['{written}']"
    steps, at = ["$"], 1
    while at < len(written):
        match = _STEP.match(written, at)
        if match is None or "'" in (match[2] or ""):
            return None
        steps.append(f"[{match[3]}]" if match[3] else f"['{match[1] or match[2]}']")
        at = match.end()
    return "".join(steps)


def _extract(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    written = node.args[1].value
    path = None if written is None else path_of(str(written))
    if path is None:
        return pl.lit(None, dtype=pl.String)
    return args[0].str.json_path_match(path)


_EXTRACT = Operation("json text", _extract)


def _signature(types: Sequence[Type]) -> Signature | None:
    if len(types) != 2 or types[0] not in (JSON, NULL) or types[1] not in (TEXT, NULL):
        return None
    return Signature((JSON, TEXT), TEXT, _EXTRACT)


def _check(args: Sequence[Node]) -> str | None:
    written = args[1].value
    if written is not None and path_of(str(written)) is None:
        return f"`{written}` is not a path of keys and places, as `$.a.b[0]`"
    return None


FUNCTIONS = tuple(
    Function(name, shown, _signature, literals=frozenset({1}), prepare=_check)
    for name, shown in (
        ("->>", "json ->> '$.path'"),
        ("json_extract_string", "json_extract_string(json, '$.path')"),
    )
)
