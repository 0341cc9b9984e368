"""A layer of a plan as it runs: columns that are evaluated, then the windows of its entities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache, partial
from itertools import chain, zip_longest

import pyarrow as pa

from tidegate.events.fingerprints import Integers
from tidegate.features.batch import Found, Results
from tidegate.features.compile import Entity, Layer
from tidegate.features.course import Section
from tidegate.features.entity import EntityState
from tidegate.features.plan import LOG_OFFSET, EntityPlan
from tidegate.features.table import NO_ERRORS, Table
from tidegate.features.threads import Threads
from tidegate.schema import Kind
from tidegate.sql.expression import Expression, ExpressionSet

_TEXTS = (Kind.TEXT, Kind.JSON)
_TOGETHER = 4096  # events that are worth waking other threads for
_SIDE_BY_SIDE = 8  # entities, of a batch or of the one begun after it


class Evaluations:
    """Expressions that are evaluated together, each into a column of its name."""

    def __init__(self, named: Sequence[tuple[str, Expression]], *, threads: int = 1) -> None:
        self._named, self._threads = named, threads
        self.names = [name for name, _ in named]
        self.all = ExpressionSet([e for _, e in named])
        # Not behind the windows of what was begun next.
        self._spread = Threads(threads, "expressions").run if threads > 1 else None

    def evaluate(self, table: Table) -> Sequence[Found]:
        """Values and errors in the order of `names`; all columns that they read are known."""
        return self.all.columns(table.columns, self._spread) if self._named else ()

    def within(self, known: frozenset[str]) -> Evaluations:
        """Those that can be evaluated from the columns."""
        return Evaluations(
            [(n, e) for n, e in self._named if e.columns <= known], threads=self._threads
        )


class LayerState:
    """A layer as it runs; `states` has the state of each entity."""

    def __init__(self, layer: Layer, *, key: bytes, threads: int, lasting: bool) -> None:
        self._threads = threads
        hidden = [(h.name, h.expression) for h in layer.hidden if h.expression]
        self._set = Evaluations(hidden, threads=threads)
        self._outputs = tuple(name for e in layer.entities for name in e.outputs)
        self._numbers = [h for h in layer.hidden if h.expression is None]
        make = partial(EntityState, key=key, threads=threads, lasting=lasting)
        self.use([(e, make(e.plan)) for e in layer.entities])
        self._declared: Evaluations | None = None  # what is evaluated where a label comes
        self._running: list[Future[Results]] = []  # the entities on what was begun last

    def use(self, states: Sequence[tuple[Entity, EntityState]]) -> None:
        """Go on with these states of the entities."""
        self.states = states

    def section(self) -> Section:
        """The layer as a part of a course."""
        calls = [
            (n, c) for e, _ in self.states for n, c in zip(e.outputs, e.plan.calls, strict=True)
        ]
        texts = frozenset(n for n, c in calls if c.type.kind in _TEXTS)
        numbers = [(h.name, next(iter(h.columns))) for h in self._numbers]
        states = [state for _, state in self.states]
        return Section(self._set.names, self._set.all, numbers, states, self._outputs, texts)

    def begin(
        self, table: Table, *, times: Integers, newest: Integers
    ) -> Callable[[], list[Results]]:
        """Begin with the columns and windows of this layer; gives what waits for the windows."""
        self._prepare(table, self._set)
        columns = table.columns
        if self._threads > 1 and len(times) >= _TOGETHER:
            self._describe(table)
            take = [partial(s.take, columns, times=times, newest=newest) for _, s in self.states]
            tasks = zip_longest(self._running, take)  # one each, or none has run before
            self._running = running = [_others().submit(_after, b, task) for b, task in tasks]
            return lambda: self._ended(running)
        if self._running:
            wait(self._running)
        results = [s.take(columns, times=times, newest=newest) for _, s in self.states]
        return lambda: results

    def end(self, table: Table, results: list[Results]) -> None:
        """Take what the windows gave into the table."""
        if not table.errors and not any(taken.errors for taken in results):
            made = chain.from_iterable(taken.columns for taken in results)
            table.columns.put_all(self._outputs, made)
            return
        for (entity, _), taken in zip(self.states, results, strict=True):
            table.take(entity.outputs, list(taken.found()))

    def _ended(self, running: list[Future[Results]]) -> list[Results]:
        wait(running)
        if running is self._running:
            self._running = []  # results are not held any longer than they are wanted
        return [each.result() for each in running]

    def peek(self, table: Table, *, time: int, newest: int) -> None:
        """What of the layer can be known from the columns of the table."""
        self._prepare(table, self._set.within(table.known))
        for entity, state in self.states:
            if frozenset(entity.plan.keys) <= table.known:
                keys = table.batch(entity.plan.keys)
                found = state.peek(keys, time=time, newest=newest)
                table.take(entity.outputs, [(e.values, e.errors) for e in found])

    def amend(self, table: Table, *, times: Integers, changed: frozenset[str]) -> int:
        """Correct rows of this layer's entities, as far as declared columns say what they are."""
        states = [(e.plan, s) for e, s in self.states if LOG_OFFSET in e.plan.values]
        if not states:
            return 0
        if self._declared is None:
            self._declared = self._set.within(table.known)
        self._prepare(table, self._declared)
        return sum(s.amend(_whole(table, p), times=times, changed=changed) for p, s in states)

    def _describe(self, table: Table) -> None:
        """Look at all columns, which several threads then read."""
        for entity, _ in self.states:
            for name in _needs(entity.plan):
                table.columns.place(name)

    def _prepare(self, table: Table, expressions: Evaluations) -> None:
        table.take(expressions.names, expressions.evaluate(table))
        for hidden in self._numbers:
            if hidden.columns <= table.known:
                [column] = hidden.columns
                table.put(hidden.name, table.column(column).cast(pa.int64()), NO_ERRORS)


@lru_cache
def _others() -> ThreadPoolExecutor:
    """Threads in which entities run beside each other; all states share them."""
    return ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="entities")


def _after(before: Future[Results] | None, task: Callable[[], Results]) -> Results:
    """Do a task when the one before it has ended, which was handed in before and so has begun."""
    if before is not None:
        wait([before])
    return task()


def _whole(table: Table, plan: EntityPlan) -> pa.RecordBatch:
    """All columns that an entity takes; those that are not known, and do not change, are null."""
    types = dict(zip(plan.values, plan.value_types, strict=True))
    columns = {
        name: table.column(name)
        if name in table.known
        else pa.array(
            [None] * len(table.events), types[name].arrow if name in types else pa.bool_()
        )
        for name in _needs(plan)
    }
    return pa.RecordBatch.from_pydict(columns)


def _needs(plan: EntityPlan) -> tuple[str, ...]:
    """The columns that an entity takes, each once."""
    return tuple(dict.fromkeys((*plan.keys, *plan.values, *plan.filters)))
