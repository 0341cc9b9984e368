"""The commonest operations as steps of a compiled machine, for batches too small for Polars.

An expression goes this way if every operation in it has an entry here that covers its types; the
values are the same to the bit. What would be an error of a row is left to Polars, which can tell
it: the machine stops and the whole batch goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from tidegate.schema import ColumnType, Kind
from tidegate.sql import steps
from tidegate.sql.assembly import Assembly, Bytes, Emit, Words, below, bits_of
from tidegate.sql.columns import Columns, Shape, Slab
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
    DATE_PART,
    EPOCH,
    EPOCH_US,
    HOUR,
    MINUTE,
    PARTS,
    part_named,
)
from tidegate.sql.tree import COLUMN, LITERAL, Node, Operation
from tidegate.sql.types import DIGITS_INT64, TEXTUAL, Name

# Does `task(first, last)` over so many things, several at once; ends when all have ended.
Spread: TypeAlias = "Callable[[Callable[[int, int], None], int], None]"

_PLANS_MAX = 256  # numbers of rows whose outputs are kept planned
_ROOM_MIN = 1 << 16  # words that are kept however small batches become
_SECTION_BYTES = 1 << 18
_SECTION_MIN, _SECTION_MAX = 1 << 10, 1 << 14  # rows
# Bytes of validity and of values for each eight rows of a column.
_WORD_STRIDE = (1, 64)
_STRIDES = {steps.DECIMAL: (1, 128), steps.BOOLEAN: (1, 1)}


class GiveUp(Exception):  # noqa: N818 - not an error: this batch goes the other way
    """A row has an error, or might have one."""


@dataclass(frozen=True, slots=True)
class _Entry:
    emit: Emit
    covers: Callable[[Node], bool]


class Direct:
    """Trees as a list of steps; one thread at a time may run them."""

    def __init__(self, outputs: Sequence[tuple[Node, ColumnType]]) -> None:
        self._assembly = Assembly([t for t, _ in outputs], lambda to, n: _ENTRIES[n.op].emit(to, n))
        self._constants = self._assembly.constants
        self._lists = self._assembly.lists
        self._columns = self._assembly.columns
        self._shape = Shape([type_ for _, type_ in outputs])
        self._forms = [_FORMS.get(type_.kind, steps.PLAIN) for _, type_ in outputs]
        self._scratch: Words = np.empty(0, dtype=np.int64)
        self._roomy = -1  # rows that the scratch was had for last
        self._names = [name for name, _ in self._columns]
        described: Words = np.zeros((max(1, len(self._names)), 5), dtype=np.int64)
        described[: len(self._names), 0] = [form for _, form in self._columns]
        self._described, self._places = described.ravel(), described[: len(self._names), 1:]
        self._truths: Words = np.zeros((len(outputs), 5), dtype=np.int64)
        self._truths[:, 2] = -1
        self._truths[:, 0], self._truths[:, 1] = self._assembly.results, steps.TRUTH
        self._wanted: Words = self._truths.copy()
        self._wanted[:, 1] = self._forms
        self._plans: dict[int, tuple[Words, Words]] = {}
        self._flags: Bytes = np.empty(0, dtype=np.uint8)
        self._flags_begin = 0

    def run(self, columns: Columns, spread: Spread | None = None) -> Slab:
        """The values of each tree; with `spread` section by section. Raises: GiveUp."""
        rows = columns.rows
        self._describe(columns)
        if spread is None:
            return self._made(rows)
        slab, (outputs, _) = Slab(self._shape, rows), self._planned(rows)
        self._run_sections(rows, outputs, slab.address, spread)
        slab.nulls = outputs[4::5].tolist()
        return slab

    @property
    def names(self) -> Sequence[str]:
        """The columns that it reads."""
        return self._names

    def run_by(self, rows: int, places: Words, numbers: Words) -> Slab:
        """As `run`, of columns that lie at these of the places, in the order of `names`.

        `places` has four words for each, shape (columns, 4).
        """
        places.take(numbers, 0, self._places, "clip")  # which needs no copy on the way
        return self._made(rows)

    def put(self, slab: Slab, places: Words, first: int) -> None:
        """Have the places say where what `run_by` gave last lies, from number `first` on."""
        nulls, spans = self._planned(slab.rows)[0][4::5], self._shape.spans(slab.rows).words
        self._putter(places, first, spans, nulls, slab.address)

    def _made(self, rows: int) -> Slab:
        """The values of each tree, of columns that are described."""
        slab, (outputs, _) = Slab(self._shape, rows), self._planned(rows)
        self._run(self._described, rows, outputs, slab.address, self._room(rows))
        slab.nulls = outputs[4::5].tolist()
        return slab

    def truths(self, columns: Columns) -> Bytes:
        """1 where a tree, which is a condition, is true: shape (trees, rows). Raises: GiveUp."""
        rows, count = columns.rows, len(self._truths)
        if len(self._flags) < count * rows:
            self._flags = np.empty(count * rows, dtype=np.uint8)
            self._flags_begin = self._flags.ctypes.data
        self._describe(columns)
        outputs = self._planned(rows)[1]
        self._run(self._described, rows, outputs, self._flags_begin, self._room(rows))
        return self._flags[: count * rows].reshape(count, rows).copy()

    def _planned(self, rows: int) -> tuple[Words, Words]:
        """The outputs for so many rows, as values and as truths."""
        found = self._plans.get(rows)
        if found is None:
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            values, truths = self._wanted.copy(), self._truths.copy()
            spans = np.array(self._shape.spans(rows).spans, dtype=np.int64)
            values[:, 2], values[:, 3] = spans[:, 0], spans[:, 2]
            truths[:, 3] = rows * np.arange(len(truths))
            found = self._plans[rows] = values.ravel(), truths.ravel()
        return found

    def _run_sections(self, rows: int, outputs: Words, top: int, spread: Spread) -> None:
        """As `_run`; the registers of a section stay near the processor from step to step."""
        size = _section(self._assembly.registers)
        strides = np.array([_STRIDES.get(form, _WORD_STRIDE) for form in self._forms])
        nulls = list[Words]()

        def work(first: int, last: int) -> None:
            room: Words = np.empty(_words(size, self._assembly.registers), dtype=np.int64)
            for begin in range(first * size, min(rows, last * size), size):
                given, wanted = self._described.copy(), outputs.copy()
                given[4 :: steps.DESCRIPTION] += begin
                wanted.reshape(-1, 5)[:, 2:4] += begin // 8 * strides
                self._run(given, min(size, rows - begin), wanted, top, room)
                nulls.append(wanted[4::5])

        spread(work, -(-rows // size))
        outputs[4::5] = np.sum(nulls, axis=0)

    def _describe(self, columns: Columns) -> None:
        places: Words = np.array(columns.places(self._names), dtype=np.int64)
        self._places[:] = places.reshape(-1, 4)

    def _run(self, described: Words, rows: int, outputs: Words, top: int, room: Words) -> None:
        failed = self._machine(
            self._assembly.code,
            *self._constants,
            self._lists,
            described,
            rows,
            self._assembly.registers,
            room,
            outputs,
            top,
        )
        if failed:
            raise GiveUp

    @cached_property
    def _machine(self) -> Callable[..., int]:
        from tidegate.sql.registers import machine  # it loads the compiler: only where needed

        return machine.get()

    @cached_property
    def _putter(self) -> Callable[..., None]:
        from tidegate.sql.places import putter

        return putter.get()

    def _room(self, rows: int) -> Words:
        """Memory for the registers, kept for the next batch."""
        if rows == self._roomy:
            return self._scratch
        self._roomy = rows
        size = _words(rows, self._assembly.registers)
        if len(self._scratch) < size or len(self._scratch) > max(_ROOM_MIN, 64 * size):
            self._scratch = np.empty(size, dtype=np.int64)
        return self._scratch


def _words(rows: int, registers: int) -> int:
    """Words that the registers take for so many rows."""
    return 1 + -(-rows * registers * 9 // 8)


def _section(registers: int) -> int:
    """Rows whose registers stay near the processor; of columns of bits they have whole bytes."""
    return max(_SECTION_MIN, min(_SECTION_MAX, _SECTION_BYTES // (9 * max(1, registers)) & -64))


def covered(tree: Node) -> bool:
    """Whether the tree can go this way."""
    return all(_is_covered(node) for node in below(tree)) and tree.type.name not in _NOT_OUT


def _is_covered(node: Node) -> bool:
    if node.op is COLUMN or node.op is LITERAL:
        return node.type.name in TEXTUAL or _is_narrow(node)
    entry = _ENTRIES.get(node.op)
    return entry is not None and entry.covers(node)


# -- what is covered ------------------------------------------------------------------------------

_NOT_OUT = frozenset({Name.TEXT, Name.JSON, Name.DATE, Name.INTERVAL, Name.NULL})
_FORMS = {Kind.DECIMAL: steps.DECIMAL, Kind.BOOLEAN: steps.BOOLEAN}


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


def _more_places(node: Node) -> bool:
    return _all_narrow(node) and node.type.scale >= node.args[0].type.scale


def _few_digits(node: Node) -> bool:
    return node.args[0].type.precision <= 15


# -- logic ---------------------------------------------------------------------------------------

_MEANT = {
    "=": steps.IF_EQUAL,
    "<>": steps.IF_LESS | steps.IF_GREATER,
    "<": steps.IF_LESS,
    ">": steps.IF_GREATER,
    "<=": steps.IF_LESS | steps.IF_EQUAL,
    ">=": steps.IF_GREATER | steps.IF_EQUAL,
}


def _compared(to: Assembly, node: Node) -> int:
    left, right = node.args
    if left.type.name in TEXTUAL:
        return _texts_compared(to, node)
    double = left.type.name is Name.DOUBLE
    equal = steps.EQUAL_DOUBLE if double else steps.EQUAL
    less = steps.LESS_DOUBLE if double else steps.LESS
    a, b = to.place(left), to.place(right)
    match node.op.name:
        case "=":
            return to.step(equal, a, b)
        case "<>":
            return to.step(steps.NOT, to.step(equal, a, b))
        case "<":
            return to.step(less, a, b)
        case ">":
            return to.step(less, b, a)
        case "<=":
            return to.step(steps.NOT, to.step(less, b, a))
        case _:
            return to.step(steps.NOT, to.step(less, a, b))


def _texts_compared(to: Assembly, node: Node) -> int:
    left, right = node.args
    meant = _MEANT[node.op.name]
    if right.is_literal:
        return to.step(steps.TEXT_TO_LITERAL, to.column(left), to.text(right), meant)
    return to.step(steps.TEXT_TO_COLUMN, to.column(left), to.column(right), meant)


def _in(to: Assembly, node: Node) -> int:
    first, items = node.args[0], node.args[1:]
    if first.type.name not in TEXTUAL:
        return to.step(steps.IN, to.place(first), to.words(items), len(items))
    places = [to.text(item) for item in items]
    return to.step(steps.IN_TEXT, to.column(first), places[0], len(items))


def _folded(code: int) -> Emit:
    """A step of two, from the left on."""

    def emit(to: Assembly, node: Node) -> int:
        found = to.place(node.args[0])
        for arg in node.args[1:]:
            found = to.step(code, found, to.place(arg))
        return found

    return emit


def _is_null(to: Assembly, node: Node) -> int:
    [arg] = node.args
    if arg.op is COLUMN and arg.type.name in TEXTUAL:
        return to.step(steps.IS_NULL, to.step(steps.LOAD, to.column(arg)))
    return to.step(steps.IS_NULL, to.place(arg))


def _case(to: Assembly, node: Node) -> int:
    found = to.place(node.args[-1])
    for condition, value in reversed(list(zip(node.args[:-1:2], node.args[1:-1:2], strict=True))):
        found = to.step(steps.CHOOSE, to.place(condition), to.place(value), found)
    return found


# -- numbers and times ----------------------------------------------------------------------------


def _of_one(code: int, c: int = 0, e: int = 0) -> Emit:
    return lambda to, node: to.step(code, to.place(node.args[0]), 0, c, e)


def _of_two(code: int) -> Emit:
    return lambda to, node: to.step(code, *map(to.place, node.args))


_WITHIN = {Name.INTEGER: steps.INT32, Name.DECIMAL: steps.ANY}


def _exact(code: int) -> Emit:
    """Arithmetic of whole numbers, which must stay within their type."""

    def emit(to: Assembly, node: Node) -> int:
        within = _WITHIN.get(node.type.name, steps.INT64)
        return to.step(code, *map(to.place, node.args), within)

    return emit


def _loaded(to: Assembly, node: Node) -> int:
    return to.step(steps.LOAD, to.column(node))


def _same(to: Assembly, node: Node) -> int:
    return to.place(node.args[0])


_PARTS = {
    "hour": (steps.CLOCK, HOUR, 24),
    "minute": (steps.CLOCK, MINUTE, 60),
    "year": (steps.CALENDAR, steps.YEAR, 0),
    "month": (steps.CALENDAR, steps.MONTH, 0),
    "day": (steps.CALENDAR, steps.DAY, 0),
    "quarter": (steps.CALENDAR, steps.QUARTER, 0),
    "doy": (steps.CALENDAR, steps.DOY, 0),
    "dow": (steps.CALENDAR, steps.DOW, 0),
    "isodow": (steps.CALENDAR, steps.ISODOW, 0),
    "week": (steps.CALENDAR, steps.WEEK, 0),
    "isoyear": (steps.CALENDAR, steps.ISOYEAR, 0),
    "decade": (steps.CALENDAR, steps.DECADE, 0),
    "century": (steps.CALENDAR, steps.CENTURY, 0),
}


def _part(to: Assembly, node: Node) -> int:
    """A part of a time, which is the last argument."""
    name = node.op.name.removeprefix("part.")
    code, c, e = _PARTS[_part_asked(node) if node.op is DATE_PART else name]
    return to.step(code, to.place(node.args[-1]), 0, c, e)


def _part_asked(node: Node) -> str:
    return part_named(str(node.args[0].value)) or ""


def _parted(node: Node) -> bool:
    of_time = node.args[1].type.name is Name.TIMESTAMP
    return of_time and node.args[0].is_literal and _part_asked(node) in _PARTS


def _widened(to: Assembly, node: Node) -> int:
    if node.type.name is not Name.DOUBLE:
        return _same(to, node)
    return to.step(steps.TO_DOUBLE, to.place(node.args[0]))


def _nonzero(to: Assembly, node: Node) -> int:
    double = node.args[0].type.name is Name.DOUBLE
    return to.step(steps.NOT_ZERO_DOUBLE if double else steps.NOT_ZERO, to.place(node.args[0]))


def _scaled(to: Assembly, node: Node) -> int:
    """A whole number or decimal as a decimal of more places."""
    factor = 10 ** (node.type.scale - node.args[0].type.scale)
    limit = bits_of(0.9 * 10.0**node.type.precision)
    return to.step(steps.SCALE, to.place(node.args[0]), 0, factor, limit)


def _descaled(to: Assembly, node: Node) -> int:
    factor = 10 ** node.args[0].type.scale
    return to.step(steps.DESCALE, to.place(node.args[0]), 0, factor)


_DECIMALS = CONVERSIONS[Name.DECIMAL, Name.DECIMAL]
_TO_DECIMAL = CONVERSIONS[Name.BIGINT, Name.DECIMAL]
_ENTRIES: Mapping[Operation, _Entry] = {
    COLUMN: _Entry(_loaded, _is_covered),
    **{by: _Entry(_compared, _comparable) for by in logic.COMPARED},
    logic.IN: _Entry(_in, _listed),
    logic.AND: _Entry(_folded(steps.AND), _all_narrow),
    logic.OR: _Entry(_folded(steps.OR), _all_narrow),
    logic.NOT: _Entry(_of_one(steps.NOT), _all_narrow),
    logic.IS_NULL: _Entry(_is_null, _askable),
    logic.IS_TRUE: _Entry(_of_one(steps.IS_TRUE), _all_narrow),
    logic.IS_FALSE: _Entry(_of_one(steps.IS_FALSE), _all_narrow),
    logic.COALESCE: _Entry(_folded(steps.COALESCE), _all_narrow),
    logic.CASE: _Entry(_case, _all_narrow),
    ADD_DOUBLE: _Entry(_of_two(steps.ADD_DOUBLE), _all_narrow),
    SUB_DOUBLE: _Entry(_of_two(steps.SUB_DOUBLE), _all_narrow),
    MUL_DOUBLE: _Entry(_of_two(steps.MUL_DOUBLE), _all_narrow),
    DIV_DOUBLE: _Entry(_of_two(steps.DIV_DOUBLE), _all_narrow),
    NEGATE_DOUBLE: _Entry(_of_one(steps.NEGATE_DOUBLE), _all_narrow),
    ADD_WHOLE: _Entry(_exact(steps.ADD), _all_narrow),
    SUB_WHOLE: _Entry(_exact(steps.SUB), _all_narrow),
    MUL_WHOLE: _Entry(_exact(steps.MUL), _all_narrow),
    ADD_DECIMAL: _Entry(_exact(steps.ADD), _all_narrow),
    SUB_DECIMAL: _Entry(_exact(steps.SUB), _all_narrow),
    **dict.fromkeys(CONVERSIONS[Name.BIGINT, Name.DOUBLE], _Entry(_widened, _all_narrow)),
    **dict.fromkeys(CONVERSIONS[Name.INTEGER, Name.BIGINT], _Entry(_same, _all_narrow)),
    **dict.fromkeys(CONVERSIONS[Name.BIGINT, Name.BOOLEAN], _Entry(_nonzero, _all_narrow)),
    **dict.fromkeys((*_DECIMALS, *_TO_DECIMAL), _Entry(_scaled, _more_places)),
    **dict.fromkeys(CONVERSIONS[Name.DECIMAL, Name.DOUBLE], _Entry(_descaled, _few_digits)),
    BETWEEN: _Entry(_exact(steps.SUB), _all_narrow),
    EPOCH: _Entry(_of_one(steps.SECONDS), _all_narrow),
    EPOCH_US: _Entry(_same, _all_narrow),
    **{PARTS[name]: _Entry(_part, _all_narrow) for name in _PARTS},
    DATE_PART: _Entry(_part, _parted),
}
