"""The commonest operations on NumPy columns, for batches too small for Polars' fixed cost.

An expression goes this way if every operation in it has an entry here that covers its types; the
values are the same to the bit. What would be an error of a row is left to Polars, which can tell
it: the operation raises `GiveUp` and the whole batch goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.schema import ColumnType, Kind
from tidegate.sql.functions import logic
from tidegate.sql.functions.arithmetic import (
    ADD_DECIMAL,
    ADD_DOUBLE,
    ADD_WHOLE,
    DIV_DOUBLE,
    MUL_DOUBLE,
    MUL_WHOLE,
    NEGATE_DOUBLE,
    SUB_DECIMAL,
    SUB_DOUBLE,
    SUB_WHOLE,
)
from tidegate.sql.functions.cast import CONVERSIONS
from tidegate.sql.functions.time import (
    BETWEEN,
    CALENDAR,
    DAY,
    EPOCH,
    EPOCH_US,
    HOUR,
    MINUTE,
    PARTS,
    SECOND,
)
from tidegate.sql.tree import COLUMN, LITERAL, Node, Operation, Span
from tidegate.sql.types import DIGITS_INT64, TEXTUAL, Name

Mask: TypeAlias = npt.NDArray[np.bool_]


class GiveUp(Exception):  # noqa: N818 - not an error: this batch goes the other way
    """A row has an error, or might have one."""


class Value(NamedTuple):
    """A column of n values, or one value for all rows (shape (1,), or `str` for text).

    `known` is None where no value is null; what stands in the place of a null means nothing.
    Decimals are whole numbers, scaled; times microseconds.
    """

    values: Any
    known: Mask | None = None


Compute: TypeAlias = "Callable[[Node, Sequence[Value]], Value]"
Step: TypeAlias = "tuple[Compute, Node, tuple[int, ...]]"


@dataclass(frozen=True, slots=True)
class _Entry:
    compute: Compute
    covers: Callable[[Node], bool]


class Direct:
    """Trees as a list of steps, each done once however often its value is used."""

    def __init__(self, outputs: Sequence[tuple[Node, ColumnType]]) -> None:
        self._steps: list[Step] = []
        self._columns: list[str] = []
        self._constants: list[Value] = []
        self._places: dict[Node, int] = {}
        constants: list[Node] = []
        rest: list[Node] = []
        for node in dict.fromkeys(n for tree, _ in outputs for n in _below(tree)):
            (constants if node.op is LITERAL else rest).append(node)
        columns = [n for n in rest if n.op is COLUMN]
        for place, node in enumerate([*constants, *columns]):
            self._places[node] = place
        self._constants = [_literal(n) for n in constants]
        self._columns = [str(n.value) for n in columns]
        for node in rest:
            if node.op is not COLUMN:
                args = tuple(self._places[a] for a in node.args)
                self._places[node] = len(self._places)
                self._steps.append((_ENTRIES[node.op].compute, node, args))
        self._outputs = [(self._places[tree], type_) for tree, type_ in outputs]

    def run(self, batch: pa.RecordBatch) -> list[pa.Array[Any]]:
        """The values of each tree. Raises: GiveUp."""
        slots = [*self._constants, *(_column(batch.column(name)) for name in self._columns)]
        with np.errstate(all="ignore"):
            for compute, node, args in self._steps:
                slots.append(compute(node, [slots[a] for a in args]))
        return [_outgoing(slots[place], type_, batch.num_rows) for place, type_ in self._outputs]


def covered(tree: Node) -> bool:
    """Whether the tree can go this way."""
    return all(_is_covered(node) for node in _below(tree)) and tree.type.name not in _NOT_OUT


def _is_covered(node: Node) -> bool:
    if node.op is COLUMN or node.op is LITERAL:
        return node.type.name in TEXTUAL or _is_narrow(node)
    entry = _ENTRIES.get(node.op)
    return entry is not None and entry.covers(node)


def _below(tree: Node) -> list[Node]:
    """The nodes of a tree, arguments before what uses them."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for arg in node.args:
                visit(arg)
            found[node] = None

    visit(tree)
    return list(found)


# -- in and out ----------------------------------------------------------------------------------

_NOT_OUT = frozenset({Name.TEXT, Name.JSON, Name.DATE, Name.INTERVAL, Name.NULL})


def _literal(node: Node) -> Value:
    value = node.span.total if isinstance(node.value, Span) else node.value
    if value is None:
        return Value(np.zeros(1, _dtype(node)), np.zeros(1, np.bool_))
    if isinstance(value, str):
        return Value(value)
    return Value(np.array([value], _dtype(node)))


def _dtype(node: Node) -> npt.DTypeLike:
    match node.type.name:
        case Name.DOUBLE:
            return np.float64
        case Name.BOOLEAN | Name.NULL:
            return np.bool_
        case _:
            return np.int64


def _column(array: pa.Array[Any]) -> Value:
    known = None
    if array.null_count:
        known = array.is_valid().to_numpy(zero_copy_only=False)
    kind = array.type
    if pa.types.is_string(kind):
        return Value(array, known)
    if pa.types.is_boolean(kind):
        plain = array.fill_null(False) if known is not None else array  # noqa: FBT003 - Arrow's own signature
        return Value(plain.to_numpy(zero_copy_only=False), known)
    return Value(_words(array), known)


def _words(array: pa.Array[Any]) -> Any:
    """The column's numbers as they lie in memory; of decimals the lower half, which is all."""
    width = 2 if pa.types.is_decimal(array.type) else 1
    dtype = np.float64 if pa.types.is_floating(array.type) else np.int64
    data: Any = array.buffers()[1]
    words = np.frombuffer(data, dtype, count=(array.offset + len(array)) * width)
    return words[array.offset * width :: width]


def _outgoing(value: Value, type_: ColumnType, rows: int) -> pa.Array[Any]:
    values, known = value
    if len(values) != rows:
        values = np.broadcast_to(values, rows)
    mask = None if known is None else ~np.broadcast_to(known, rows)
    if type_.kind is Kind.TIMESTAMP:
        return pa.array(values, pa.int64(), mask=mask).view(pa.timestamp("us"))
    if type_.kind is Kind.DECIMAL:
        return _outgoing_decimal(values, mask, type_)
    return pa.array(values, type_.arrow, mask=mask)


def _outgoing_decimal(values: Any, mask: Mask | None, type_: ColumnType) -> pa.Array[Any]:
    words = np.empty((len(values), 2), np.int64)
    words[:, 0], words[:, 1] = values, values >> 63
    data = pa.py_buffer(words.tobytes())
    valid = None if mask is None else np.packbits(~mask, bitorder="little").tobytes()
    known = None if valid is None else pa.py_buffer(valid)
    return pa.Array.from_buffers(type_.arrow, len(values), [known, data])


# -- what is covered ------------------------------------------------------------------------------


def _is_narrow(node: Node) -> bool:
    """Whether the values fit 64 bits."""
    wide = node.type.name is Name.DECIMAL and node.type.precision > DIGITS_INT64
    return not wide and node.type.name not in TEXTUAL


def _all_narrow(node: Node) -> bool:
    return all(_is_narrow(n) for n in (node, *node.args))


def _comparable(node: Node) -> bool:
    left, right = node.args
    if left.type.name in TEXTUAL:
        return (
            right.type.name in TEXTUAL
            and not (left.is_literal or right.value is None)
            and (right.op in (LITERAL, COLUMN) and left.op is COLUMN)
        )
    return _all_narrow(node)


def _listed(node: Node) -> bool:
    first, items = node.args[0], node.args[1:]
    if not all(i.is_literal and i.value is not None for i in items):
        return False
    if first.type.name in TEXTUAL:
        return first.op is COLUMN
    return _is_narrow(first) and first.type.name is not Name.DOUBLE


def _askable(node: Node) -> bool:
    return node.args[0].op is COLUMN or _is_narrow(node.args[0])


# -- logic ---------------------------------------------------------------------------------------


def _both(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return left if right is None else right
    return left & right


def _no_nan(node: Node) -> bool:
    return node.is_literal and node.value == node.value


def _less(node: Node, left: Any, right: Any, *, swapped: bool = False) -> Any:
    """left < right, as DuckDB orders doubles: NaN equals NaN and is greatest."""
    if node.args[0].type.name is not Name.DOUBLE:
        return left < right
    a, b = (node.args[1], node.args[0]) if swapped else node.args
    if _no_nan(b):
        return left < right
    if _no_nan(a):
        return ~(right <= left)
    return (left < right) | ((right != right) & (left == left))


def _equal(node: Node, left: Any, right: Any) -> Any:
    same = left == right
    if node.args[0].type.name is not Name.DOUBLE or any(_no_nan(a) for a in node.args):
        return same
    return same | ((left != left) & (right != right))


_COMPARE: Mapping[str, Callable[[Node, Any, Any], Any]] = {
    "=": _equal,
    "<>": lambda n, a, b: ~_equal(n, a, b),
    "<": _less,
    ">": lambda n, a, b: _less(n, b, a, swapped=True),
    "<=": lambda n, a, b: ~_less(n, b, a, swapped=True),
    ">=": lambda n, a, b: ~_less(n, a, b),
}
_COMPARE_TEXT: Mapping[str, Callable[..., pa.Array[Any]]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    ">": pc.greater,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
}


def _compared(node: Node, args: Sequence[Value]) -> Value:
    (left, known), (right, other) = args
    if node.args[0].type.name in TEXTUAL:
        found = _COMPARE_TEXT[node.op.name](left, right)
        return Value(_flags(found), _both(known, other))
    return Value(_COMPARE[node.op.name](node, left, right), _both(known, other))


def _flags(found: pa.Array[Any]) -> Mask:
    plain = found.fill_null(False) if found.null_count else found  # noqa: FBT003 - Arrow's own signature
    flags: Mask = plain.to_numpy(zero_copy_only=False)
    return flags


def _in(node: Node, args: Sequence[Value]) -> Value:
    (values, known), items = args[0], args[1:]
    if node.args[0].type.name in TEXTUAL:
        wanted = pa.array([i.values for i in items], pa.string())
        return Value(_flags(pc.is_in(values, value_set=wanted)), known)
    found = values == items[0].values
    for item in items[1:]:
        found = found | (values == item.values)
    return Value(found, known)


def _and(_: Node, args: Sequence[Value]) -> Value:
    return _joined(args, decides=False)


def _or(_: Node, args: Sequence[Value]) -> Value:
    return _joined(args, decides=True)


def _joined(args: Sequence[Value], *, decides: bool) -> Value:
    """AND or OR: one part with the deciding value decides, whatever is unknown beside it."""
    values, known = args[0]
    for other, others_known in args[1:]:
        if known is None and others_known is None:
            values = (values | other) if decides else (values & other)
            continue
        a, b = (values, other) if decides else (~values, ~other)
        a = a if known is None else a & known
        b = b if others_known is None else b & others_known
        decided = a | b
        known = decided | (_both(known, others_known))
        values = decided if decides else ~decided
    return Value(values, known)


def _not(_: Node, args: Sequence[Value]) -> Value:
    return Value(~args[0].values, args[0].known)


def _is_null(_: Node, args: Sequence[Value]) -> Value:
    known = args[0].known
    if known is not None:
        return Value(~known)
    one = isinstance(args[0].values, str)
    return Value(np.zeros(1 if one else len(args[0].values), np.bool_))


def _is_true(_: Node, args: Sequence[Value]) -> Value:
    values, known = args[0]
    return Value(values if known is None else values & known)


def _is_false(_: Node, args: Sequence[Value]) -> Value:
    values, known = args[0]
    return Value(~values if known is None else ~values & known)


def _coalesce(_: Node, args: Sequence[Value]) -> Value:
    values, known = args[0]
    for other, others_known in args[1:]:
        if known is None:
            break
        values = np.where(known, values, other)
        known = None if others_known is None else known | others_known
    return Value(values, known)


def _case(_: Node, args: Sequence[Value]) -> Value:
    chosen, known = args[-1]
    for condition, value in reversed(list(zip(args[:-1:2], args[1:-1:2], strict=True))):
        here = condition.values if condition.known is None else condition.values & condition.known
        if known is not None or value.known is not None:
            mine = np.True_ if value.known is None else value.known
            known = np.where(here, mine, np.True_ if known is None else known)
        chosen = np.where(here, value.values, chosen)
    return Value(chosen, known)


# -- numbers and times ----------------------------------------------------------------------------


def _by(function: np.ufunc) -> Compute:
    def compute(_: Node, args: Sequence[Value]) -> Value:
        (left, known), (right, other) = args
        return Value(function(left, right), _both(known, other))

    return compute


def _exact(function: np.ufunc) -> Compute:
    """A sum or difference of whole numbers that must stay within its type."""

    def compute(node: Node, args: Sequence[Value]) -> Value:
        (left, known), (right, other) = args
        made = function(left, right)
        if node.type.name is Name.INTEGER:
            if (made != made.astype(np.int32)).any():
                raise GiveUp
        elif node.type.name is not Name.DECIMAL:
            changed = right if function is np.add else ~right
            if (((made ^ left) & (made ^ changed)) < 0).any():
                raise GiveUp
        return Value(made, _both(known, other))

    return compute


_PRODUCT_MAX = 2.0**62


def _multiplied(node: Node, args: Sequence[Value]) -> Value:
    (left, known), (right, other) = args
    estimate = np.abs(left.astype(np.float64) * right.astype(np.float64))
    limit = 2.0**31 - 1 if node.type.name is Name.INTEGER else _PRODUCT_MAX
    if (estimate > limit).any():
        raise GiveUp
    return Value(left * right, _both(known, other))


def _negated(_: Node, args: Sequence[Value]) -> Value:
    return Value(-args[0].values, args[0].known)


def _seconds(_: Node, args: Sequence[Value]) -> Value:
    return Value(args[0].values.astype(np.float64) / float(SECOND), args[0].known)


def _same(_: Node, args: Sequence[Value]) -> Value:
    return args[0]


def _clock(unit: int, modulus: int) -> Compute:
    def compute(_: Node, args: Sequence[Value]) -> Value:
        return Value(args[0].values % DAY // unit % modulus, args[0].known)

    return compute


def _calendar(part: str) -> Compute:
    def compute(_: Node, args: Sequence[Value]) -> Value:
        return Value(CALENDAR[part](args[0].values // DAY), args[0].known)

    return compute


def _widened(node: Node, args: Sequence[Value]) -> Value:
    return Value(args[0].values.astype(_dtype(node)), args[0].known)


def _nonzero(_: Node, args: Sequence[Value]) -> Value:
    return Value(args[0].values != 0, args[0].known)


def _scaled(node: Node, args: Sequence[Value]) -> Value:
    """A whole number or decimal as a decimal of more places."""
    factor = 10 ** (node.type.scale - node.args[0].type.scale)
    values, known = args[0]
    if (np.abs(values.astype(np.float64)) * factor >= 0.9 * 10.0**node.type.precision).any():
        raise GiveUp
    return Value(values * factor, known)


def _descaled(node: Node, args: Sequence[Value]) -> Value:
    factor = float(10 ** node.args[0].type.scale)
    return Value(args[0].values.astype(np.float64) / factor, args[0].known)


def _more_places(node: Node) -> bool:
    return _all_narrow(node) and node.type.scale >= node.args[0].type.scale


def _few_digits(node: Node) -> bool:
    return node.args[0].type.precision <= 15


_DECIMALS = CONVERSIONS[Name.DECIMAL, Name.DECIMAL]
_TO_DECIMAL = CONVERSIONS[Name.BIGINT, Name.DECIMAL]
_ENTRIES: Mapping[Operation, _Entry] = {
    LITERAL: _Entry(_same, _is_covered),
    **{by: _Entry(_compared, _comparable) for by in logic.COMPARED},
    logic.IN: _Entry(_in, _listed),
    logic.AND: _Entry(_and, _all_narrow),
    logic.OR: _Entry(_or, _all_narrow),
    logic.NOT: _Entry(_not, _all_narrow),
    logic.IS_NULL: _Entry(_is_null, _askable),
    logic.IS_TRUE: _Entry(_is_true, _all_narrow),
    logic.IS_FALSE: _Entry(_is_false, _all_narrow),
    logic.COALESCE: _Entry(_coalesce, _all_narrow),
    logic.CASE: _Entry(_case, _all_narrow),
    ADD_DOUBLE: _Entry(_by(np.add), _all_narrow),
    SUB_DOUBLE: _Entry(_by(np.subtract), _all_narrow),
    MUL_DOUBLE: _Entry(_by(np.multiply), _all_narrow),
    DIV_DOUBLE: _Entry(_by(np.true_divide), _all_narrow),
    NEGATE_DOUBLE: _Entry(_negated, _all_narrow),
    ADD_WHOLE: _Entry(_exact(np.add), _all_narrow),
    SUB_WHOLE: _Entry(_exact(np.subtract), _all_narrow),
    MUL_WHOLE: _Entry(_multiplied, _all_narrow),
    ADD_DECIMAL: _Entry(_exact(np.add), _all_narrow),
    SUB_DECIMAL: _Entry(_exact(np.subtract), _all_narrow),
    **dict.fromkeys(CONVERSIONS[Name.BIGINT, Name.DOUBLE], _Entry(_widened, _all_narrow)),
    **dict.fromkeys(CONVERSIONS[Name.INTEGER, Name.BIGINT], _Entry(_same, _all_narrow)),
    **dict.fromkeys(CONVERSIONS[Name.BIGINT, Name.BOOLEAN], _Entry(_nonzero, _all_narrow)),
    **dict.fromkeys((*_DECIMALS, *_TO_DECIMAL), _Entry(_scaled, _more_places)),
    **dict.fromkeys(CONVERSIONS[Name.DECIMAL, Name.DOUBLE], _Entry(_descaled, _few_digits)),
    BETWEEN: _Entry(_exact(np.subtract), _all_narrow),
    EPOCH: _Entry(_seconds, _all_narrow),
    EPOCH_US: _Entry(_same, _all_narrow),
    PARTS["hour"]: _Entry(_clock(HOUR, 24), _all_narrow),
    PARTS["minute"]: _Entry(_clock(MINUTE, 60), _all_narrow),
    **{PARTS[part]: _Entry(_calendar(part), _all_narrow) for part in CALENDAR},
}
