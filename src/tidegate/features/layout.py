"""A plan laid out as arrays: what the kernels interpret, and how many words each thing takes.

A stored row is `time, flags..., value words...`. Text takes a word of its keyed hash where it is
only told apart, and a word that refers to the text itself where the text must come back.
A key's record is a header, two positions for each frame, then the accumulators.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from tidegate.features.memory import Words
from tidegate.features.plan import LOG_OFFSET, Aggregate, Call, EntityPlan
from tidegate.schema import ColumnType, Kind

# The header of a key's record. `ORIGIN` is the number that a row in the block's first place would
# have, `BASE` that of the first row kept: rows are numbered in event-time order.
ID0, ID1, FRONTIER, BLOCK, CAPACITY, ORIGIN, BASE, COUNT, RUN = range(9)
HEADER = 9
NEVER = -(1 << 62)  # the frontier of a key without rows
FREED = NEVER - 1  # and of a record that is no key's

# Kinds of accumulators; `aggregates.py` has their laws.
ROWS_, COUNT_, INTEGER, DOUBLE, VARIANCE, LEAST, GREATEST, DISTINCT, TRUE, FIRST_, LAST_ = range(11)
SIZES = (0, 1, 3, 6, 8, 2, 2, 2, 2, 1, 1)

# How a word is read out.
(
    R_COUNT,
    R_INTEGER_SUM,
    R_INTEGER_AVG,
    R_DOUBLE_SUM,
    R_DOUBLE_AVG,
    R_VAR_POP,
    R_VAR_SAMP,
    R_STD_POP,
    R_STD_SAMP,
    R_ALL,
    R_ANY,
    R_LAG,
    R_LAG_EXISTS,
    R_FIRST,
    R_LAST,
    R_RANKED,
) = range(16)

# The program: a head, then frames, accumulators, calls and lags.
(
    WIDTH,
    RECORD,
    FRAMES,
    SPAN,
    LOOK_BACK,
    LAGS,
    FRAMES_AT,
    ACCUMULATORS_AT,
    CALLS_AT,
    LAGS_AT,
    TEXTS,
    TEXTS_AT,
    CALLS,
    CHUNK_CLASS,
    DISTINCTS,
    DISTINCTS_AT,
    KEY0,
    KEY1,
    HASHED_KEYS,
    BESTS,
) = range(20)
HEAD = 20
F_ROWS, F_START, F_END, F_EXCLUDE, F_FIRST, F_LAST = range(6)
FRAME = 6
(
    A_KIND,
    A_BASE,
    A_VALUE,
    A_NULL_AT,
    A_NULL,
    A_FILTER_AT,
    A_FILTER,
    A_SCALE,
    A_DOUBLE,
    A_FIRST,
    A_LAST,
    A_BEST,
) = range(12)
ACCUMULATOR = 12
C_READ, C_OUT, C_LIMIT, C_SCALE, C_OFFSET = range(5)
CALL = 5
LAG = 6

FLAGS = 62  # that a word has
_FOREVER = 1 << 61

# Forms of a column on its way in.
PLAIN, DECIMAL, BOOLEAN, HASHED, TEXT = range(5)


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrays of a plan; `program` is shared by all kernels.

    `forms` has a word of a row for each (place in `plan.values`, form). `record` and `width` are
    words of a key's record and of a stored row.
    """

    plan: EntityPlan
    program: Words
    forms: tuple[tuple[int, int], ...]
    flags: int
    width: int
    record: int


@dataclass(slots=True)
class _Accumulator:
    kind: int
    argument: int | None
    filter: int | None
    word: int
    base: int
    calls: list[list[int]]


_SUMS = {Aggregate.SUM, Aggregate.AVG}
_SPREADS = {
    Aggregate.VAR_POP: R_VAR_POP,
    Aggregate.VAR_SAMP: R_VAR_SAMP,
    Aggregate.STDDEV_POP: R_STD_POP,
    Aggregate.STDDEV_SAMP: R_STD_SAMP,
}
_KINDS = {
    Aggregate.COUNT_DISTINCT: DISTINCT,
    Aggregate.MIN: LEAST,
    Aggregate.MAX: GREATEST,
    Aggregate.BOOL_AND: TRUE,
    Aggregate.BOOL_OR: TRUE,
    **dict.fromkeys(_SPREADS, VARIANCE),
}
_COUNTING = (COUNT_, INTEGER, DOUBLE, VARIANCE, TRUE)


def lay_out(plan: EntityPlan, key: tuple[int, int]) -> Layout:
    """The layout of a plan; `key` is two words that seed hashing."""
    forms = _forms(plan)
    flags = max(1, -(-(len(plan.values) + len(plan.filters)) // FLAGS))
    width = 1 + flags + len(forms)
    words = {form: 1 + flags + i for i, form in enumerate(forms)}
    frames = [_accumulators(plan, f, words) for f in range(len(plan.frames))]
    base = HEADER + 2 * len(frames)
    for accumulator in (a for held in frames for a in held):
        accumulator.base = base
        base += SIZES[accumulator.kind]
    program = _program(plan, frames, words, (flags, width, base), key)
    return Layout(plan, program, forms, flags, width, base)


def _textual(kind: ColumnType) -> bool:
    return kind.kind in (Kind.TEXT, Kind.JSON)


def _form(plan: EntityPlan, call: Call) -> tuple[int, int] | None:
    """The column and form that a call reads, if its value matters to it."""
    if call.argument is None or call.aggregate in (Aggregate.COUNT, Aggregate.LAG_EXISTS):
        return None
    kind = plan.value_types[call.argument]
    if _textual(kind):
        return call.argument, HASHED if call.aggregate is Aggregate.COUNT_DISTINCT else TEXT
    special = {Kind.DECIMAL: DECIMAL, Kind.BOOLEAN: BOOLEAN}
    return call.argument, special.get(kind.kind, PLAIN)


def _forms(plan: EntityPlan) -> tuple[tuple[int, int], ...]:
    found = {form for call in plan.calls if (form := _form(plan, call)) is not None}
    if LOG_OFFSET in plan.values:
        found.add((plan.values.index(LOG_OFFSET), PLAIN))
    return tuple(sorted(found))


def words_of(layout: Layout, changed: Collection[str]) -> Words:
    """The bits of a stored row that change where these of its columns do, shape (width,)."""
    plan = layout.plan
    bits = [0] * layout.width
    for number, name in enumerate((*plan.values, *plan.filters)):
        if name in changed:
            word, bit = _flag(number)
            bits[word] |= bit
    for word, (place, _) in enumerate(layout.forms, start=1 + layout.flags):
        if plan.values[place] in changed:
            bits[word] = -1
    return np.array(bits, dtype=np.int64)


def offset_word(layout: Layout) -> int:
    """The word of a stored row that has its log offset, in a plan that keeps offsets."""
    form = (layout.plan.values.index(LOG_OFFSET), PLAIN)
    return 1 + layout.flags + layout.forms.index(form)


def _kind(plan: EntityPlan, call: Call) -> int:
    if call.aggregate is Aggregate.COUNT:
        return ROWS_ if call.argument is None and call.filter is None else COUNT_
    if call.aggregate in (Aggregate.FIRST, Aggregate.LAST):
        if call.filter is None:
            return ROWS_
        return FIRST_ if call.aggregate is Aggregate.FIRST else LAST_
    if call.aggregate in _SUMS:
        assert call.argument is not None  # noqa: S101 - sums have one
        return DOUBLE if plan.value_types[call.argument].kind is Kind.DOUBLE else INTEGER
    return _KINDS[call.aggregate]


def _accumulators(
    plan: EntityPlan, frame: int, words: dict[tuple[int, int], int]
) -> list[_Accumulator]:
    """The accumulators of a frame, each with the calls that are read from it."""
    found: list[_Accumulator] = []
    calls = [(n, c) for n, c in enumerate(plan.calls) if c.frame == frame]
    # Counts come last: they are read from a sum over the same rows where there is one.
    for number, call in sorted(calls, key=lambda c: (c[1].aggregate is Aggregate.COUNT, c[0])):
        kind = _kind(plan, call)
        held = next((a for a in found if _shared(a, kind, call)), None)
        if held is None:
            form = _form(plan, call)
            # Rows without an accumulator of their own may be asked for several columns.
            held = _Accumulator(kind, call.argument, call.filter, words[form] if form else 0, 0, [])
            found.append(held)
        held.calls.append(_call(plan, number, call))
    return found


def _shared(held: _Accumulator, kind: int, call: Call) -> bool:
    if (held.argument, held.filter) != (call.argument, call.filter):
        return False
    return held.kind == kind or (kind == COUNT_ and held.kind in _COUNTING)


def _call(plan: EntityPlan, number: int, call: Call) -> list[int]:
    limit = 10**call.type.precision - 1 if call.type.kind is Kind.DECIMAL else 2**63 - 1
    scale = plan.value_types[call.argument].scale if call.argument is not None else 0
    return [_read(plan, call), number, limit, _power(scale), call.offset]


def _power(scale: int) -> int:
    """The bits of 10^scale as a double."""
    return int(np.float64(10**scale).view(np.int64))


def _read(plan: EntityPlan, call: Call) -> int:
    aggregate = call.aggregate
    if aggregate in _SUMS:
        double = _kind(plan, call) == DOUBLE
        if aggregate is Aggregate.SUM:
            return R_DOUBLE_SUM if double else R_INTEGER_SUM
        return R_DOUBLE_AVG if double else R_INTEGER_AVG
    if aggregate in _SPREADS:
        return _SPREADS[aggregate]
    reads = {
        Aggregate.COUNT: R_COUNT,
        Aggregate.COUNT_DISTINCT: R_COUNT,
        Aggregate.BOOL_AND: R_ALL,
        Aggregate.BOOL_OR: R_ANY,
        Aggregate.LAG: R_LAG,
        Aggregate.LAG_EXISTS: R_LAG_EXISTS,
    }
    ends = {Aggregate.FIRST: R_FIRST, Aggregate.LAST: R_LAST}
    return {**reads, **ends}.get(aggregate, R_RANKED)


def _flag(number: int) -> list[int]:
    """The word of a row and the bit in it where flag `number` stands."""
    return [1 + number // FLAGS, 1 << (number % FLAGS)]


def _described(
    plan: EntityPlan, held: _Accumulator, first: int, bests: dict[_Best, int]
) -> list[int]:
    null = [0, 0] if held.argument is None else _flag(held.argument)
    kept = [0, 0] if held.filter is None else _flag(len(plan.values) + held.filter)
    double = scale = 0
    if held.argument is not None:
        kind = plan.value_types[held.argument]
        double, scale = int(kind.kind is Kind.DOUBLE), kind.scale
    numbers = [held.kind, held.base, held.word, *null, *kept, _power(scale), double]
    best = bests.get(_best(held), 0)
    return [*numbers, first, first + len(held.calls), best]


_Best = tuple[int, int | None, int | None]


def _best(held: _Accumulator) -> _Best:
    """What frames share of an extreme: what is known of the rows of a chunk."""
    return held.kind, held.argument, held.filter


def _program(
    plan: EntityPlan,
    frames: list[list[_Accumulator]],
    words: dict[tuple[int, int], int],
    sizes: tuple[int, int, int],
    key: tuple[int, int],
) -> Words:
    framed: list[int] = []
    described: list[int] = []
    calls: list[int] = []
    count = 0
    extremes = {_best(a): None for held in frames for a in held if a.kind in (LEAST, GREATEST)}
    bests = {best: number for number, best in enumerate(extremes)}
    for frame, held in zip(plan.frames, frames, strict=True):
        spans = [min(frame.start, _FOREVER), min(frame.end, _FOREVER)]
        framed += [int(frame.rows), *spans, int(frame.exclude_current), count, count + len(held)]
        count += len(held)
        for accumulator in held:
            described += _described(plan, accumulator, len(calls) // CALL, bests)
            calls += [n for call in accumulator.calls for n in call]
    lags: list[int] = []
    for number, call in enumerate(plan.calls):
        if call.frame is None:
            null = [0, 0] if call.argument is None else _flag(call.argument)
            form = _form(plan, call)
            lags += [_read(plan, call), number, call.offset, words[form] if form else 0, *null]
    texts = [word for (_, form), word in words.items() if form == TEXT]
    distincts = [a.base for held in frames for a in held if a.kind == DISTINCT]
    # Then for each of them the word of a row and the frame, by which its table is foreseen.
    read = [(a.word, f) for f, held in enumerate(frames) for a in held if a.kind == DISTINCT]
    at = [HEAD]
    for part in (framed, described, calls, lags, texts):
        at.append(at[-1] + len(part))
    _, width, record = sizes
    head = [0] * HEAD
    head[WIDTH], head[RECORD], head[FRAMES] = width, record, len(frames)
    head[SPAN] = min(plan.reach + plan.lateness, _FOREVER)
    head[LOOK_BACK] = min(plan.look_back, _FOREVER)
    head[LAGS], head[TEXTS], head[CALLS] = len(lags) // 6, len(texts), len(plan.calls)
    head[FRAMES_AT], head[ACCUMULATORS_AT], head[CALLS_AT] = at[0], at[1], at[2]
    head[LAGS_AT], head[TEXTS_AT], head[DISTINCTS_AT] = at[3], at[4], at[5]
    head[DISTINCTS], head[BESTS] = len(distincts), len(bests)
    head[KEY0], head[KEY1] = key
    head[HASHED_KEYS] = int(len(plan.keys) != 1 or _textual(plan.key_types[0]))
    listed = [*distincts, *(n for pair in read for n in pair)]
    return np.array([*head, *framed, *described, *calls, *lags, *texts, *listed], dtype=np.int64)
