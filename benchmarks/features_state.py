"""How the state of windows behaves: as it grows, for one event at a time, in memory.

`python -m benchmarks.features_state PART numbers…` measures one part in a process of its own and
prints what it finds as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from benchmarks.features_data import GROWTH_SQL, SCHEMA, WIDE_SQL, wide_batch
from benchmarks.features_run import CORES, plan_of, running_newest
from benchmarks.process import fresh_folder
from tidegate.features import batch as batch_module
from tidegate.features import entity
from tidegate.features.compile import FeaturePlan
from tidegate.features.entity import EntityState
from tidegate.features.state import FeatureState
from tidegate.sql.columns import Columns
from tidegate.sql.expression import ExpressionSet
from tidegate.testing.cards import DAY_US, START_TIME_US

_BATCH = 100_000
_EVEN_BATCH = 10_000
_EVENTS_A_SECOND = 1_000  # of event time
_MEASURED = 1_000_000
_SEED = 7
_BLOCK = 16 << 20
_WORDS_A_LINE = 8  # of memory, as it comes to the processor
_KERNELS = {
    **dict.fromkeys(("name_keys", "place", "load", "emit"), batch_module),
    "advance": entity,
}

_Ints = npt.NDArray[np.int64]
Step = tuple[pa.RecordBatch, _Ints, _Ints]


def main(part: str, *numbers: str) -> None:
    """One part; the results go to standard output as JSON."""
    print(json.dumps(PARTS[part](*map(int, numbers))))


# -- growth ----------------------------------------------------------------------------------------


def growth(events: int, keys: int) -> dict[str, float]:
    """Nanoseconds an event takes on one thread, after so many, of which each key had its share."""
    state = _one_entity(threads=1)
    seconds: list[float] = []
    measured_from = events - min(events // 2, _MEASURED)
    done = 0
    for step in _even(events, keys):
        begun = time.perf_counter()
        _update(state, step)
        if done >= measured_from:
            seconds.append((time.perf_counter() - begun) / step[0].num_rows)
        done += step[0].num_rows
    return {
        "ns": statistics.median(seconds) * 1e9,
        "keys": state.keys,
        "rows": state.rows,
        "mb": state.bytes / 1e6,
        "read_ns": _read_ns(state.bytes),
    }


def kernels(events: int, keys: int) -> dict[str, float]:
    """Nanoseconds an event takes in what is compiled, at so many events a second of each key.

    Of fewer keys a batch has more events each, which share the work of finding their key.
    """
    state = _one_entity(threads=1)
    found: list[float] = []
    pace = max(1, keys * _EVENTS_A_SECOND // _EVEN_BATCH)
    done, measured_from = 0, events - min(events // 2, _MEASURED)
    with _counted() as spent:
        for step in _even(events, keys, pace=pace):
            spent[0] = 0
            _update(state, step)
            done += step[0].num_rows
            if done > measured_from:
                found.append(spent[0] / step[0].num_rows)
    wait = _wait_ns(state.bytes)
    return {"ns": statistics.median(found), "wait_ns": wait, "mb": state.bytes / 1e6}


def _wait_ns(size: int, *, reads: int = 2_000_000) -> float:
    """Nanoseconds a read takes at a random place in so much memory, each waiting for the last."""
    memory = np.ones(max(_WORDS_A_LINE, size // 8), dtype=np.uint64)
    follow: Any = njit(_follow)
    follow(memory, 1)
    begun = time.perf_counter()
    follow(memory, reads)
    return (time.perf_counter() - begun) / reads * 1e9


def _follow(memory: npt.NDArray[np.uint64], reads: int) -> np.uint64:
    """Read line after line, where the next one lies depending on what is read (Knuth's MMIX)."""
    lines, number = np.uint64(len(memory) // _WORDS_A_LINE), np.uint64(1)
    for _ in range(reads):
        line = ((number >> np.uint64(32)) * lines) >> np.uint64(32)
        read = memory[line * np.uint64(_WORDS_A_LINE)]
        number = number * np.uint64(6364136223846793005) + np.uint64(1442695040888963406) + read
    return number


def _one_entity(*, threads: int) -> EntityState:
    [entity] = plan_of(GROWTH_SQL.read_text()).entities
    state = EntityState(entity.plan, key=bytes(16), threads=threads)
    warm = EntityState(entity.plan, key=bytes(16), threads=threads)
    _update(warm, next(_even(1_000, 10)))
    return state


def _update(state: EntityState, step: Step) -> None:
    events, times, newest = step
    state.update(events, times=times, newest=newest)


def _even(events: int, keys: int, *, pace: int = _EVENTS_A_SECOND) -> Iterator[Step]:
    """Batches at a steady pace; all keys come once, then each as likely as any other."""
    rng = np.random.default_rng(_SEED)
    order = rng.permutation(keys)
    for first in range(0, events, _EVEN_BATCH):
        n = min(_EVEN_BATCH, events - first)
        place = np.arange(first, first + n)
        card = np.where(place < keys, order[place % keys], rng.integers(0, keys, n))
        times = START_TIME_US + place * (1_000_000 // pace)
        yield _payments(place, times, card, rng), times, times


def _payments(place: _Ints, times: _Ints, card: _Ints, rng: np.random.Generator) -> pa.RecordBatch:
    n = len(place)
    columns: list[pa.Array[Any]] = [
        pa.array(place),
        pa.array(times).cast(pa.timestamp("us")),
        pa.array(["payment"]).take(np.zeros(n, np.int64)),
        pa.array(card),
        pa.nulls(n, pa.int64()),
        pa.array(2 * card + (rng.random(n) < 0.1)),
        pa.array(np.rint(rng.gamma(2.0, 2_500.0, n)) / 100),
        pa.array(np.zeros(n, np.int64)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA.arrow)


def _read_ns(size: int, *, reads: int = 2_000_000) -> float:
    """Nanoseconds a read takes at a random place in so much memory, many underway at once."""
    memory = np.ones(max(1, size // 8))
    places = np.random.default_rng(_SEED).integers(0, len(memory), reads)
    found = np.empty(reads)
    np.take(memory, places, out=found)
    begun = time.perf_counter()
    np.take(memory, places, out=found)
    return (time.perf_counter() - begun) / reads * 1e9


# -- one event at a time ---------------------------------------------------------------------------


def live(behind: int, events: int) -> dict[str, float]:
    """Microseconds that 24 features of one event take, by what is counted.

    `kernels` is what is compiled of the windows, `windows` that with columns in and out, `stage`
    the whole of it with the expressions.
    """
    plan = plan_of(WIDE_SQL.read_text())
    whole = FeatureState(plan, key=bytes(16), threads=CORES)
    alone = [EntityState(e.plan, key=bytes(16), threads=CORES) for e in plan.entities]
    expressions = _hidden(plan)

    def stage(batch: pa.RecordBatch, _times: _Ints, newest: _Ints) -> None:
        whole.update(batch, newest=newest)

    def windows(batch: pa.RecordBatch, times: _Ints, newest: _Ints) -> None:
        columns = Columns(batch)
        for state in alone:
            state.take(columns, times=times, newest=newest)

    for step in _wide(0, behind, behind, batch=_BATCH):
        stage(*step)
        windows(expressions(step[0]), *step[1:])
    steps = list(_wide(behind, 2 * events, behind, batch=1))
    hidden = [(expressions(batch), times, newest) for batch, times, newest in steps]
    micros = {"windows": _each(windows, hidden[:events]), "stage": _each(stage, steps[:events])}
    with _counted() as spent:
        micros["kernels"] = []
        for step in hidden[events:]:
            spent[0] = 0
            windows(*step)
            micros["kernels"].append(spent[0] / 1e3)
    return {
        f"{name}_p{percent}": _percentile(found, percent)
        for name, found in micros.items()
        for percent in (50, 99)
    }


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts the nanoseconds spent in what is compiled of an entity's update."""
    spent = [0]

    def counted(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            begun = time.perf_counter_ns()
            result = kernel(*given)
            spent[0] += time.perf_counter_ns() - begun
            return result

        return call

    kernels = {name: getattr(module, name) for name, module in _KERNELS.items()}
    try:
        for name, kernel in kernels.items():
            setattr(_KERNELS[name], name, counted(kernel))
        yield spent
    finally:
        for name, kernel in kernels.items():
            setattr(_KERNELS[name], name, kernel)


def _hidden(plan: FeaturePlan) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """What adds the columns that the windows of the first layer read to a batch."""
    hidden = [h for h in plan.layers[0].hidden if h.expression is not None]
    together = ExpressionSet([h.expression for h in hidden if h.expression is not None])

    def add(batch: pa.RecordBatch) -> pa.RecordBatch:
        for column, evaluated in zip(hidden, together.evaluate(batch), strict=True):
            batch = batch.append_column(column.name, evaluated.values)
        return batch

    return add


def _wide(first: int, events: int, behind: int, *, batch: int) -> Iterator[Step]:
    """Events as those of `features_data.wide`, of a tenth as many cards as there are behind."""
    rng = np.random.default_rng([_SEED, first])
    for start in range(first, first + events, _BATCH):
        n = min(_BATCH, first + events - start)
        block = wide_batch(
            rng,
            start,
            n,
            step_us=30 * DAY_US / behind,
            cards=max(1, behind // 10),
            others=max(1, behind // 100),
        )
        for place in range(0, n, batch):
            part = block.slice(place, batch)
            times = part["event_time"].cast(pa.int64()).to_numpy().copy()  # kernels want to own it
            yield part, times, running_newest(part, -1)


def _each(call: Callable[..., None], steps: Sequence[Step]) -> list[float]:
    micros = []
    for step in steps:
        begun = time.perf_counter_ns()
        call(*step)
        micros.append((time.perf_counter_ns() - begun) / 1e3)
    return micros


def _percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))


def batches(behind: int, events: int) -> dict[str, float]:
    """Events a second of the whole stage, in batches of 100 and in bulk, both on one thread.

    One batch of each size comes before: with the first small one what computes it is loaded.
    """
    state = FeatureState(plan_of(WIDE_SQL.read_text()), key=bytes(16))
    for batch, _, newest in _wide(0, behind, behind, batch=_BATCH):
        state.update(batch, newest=newest)
    found, first = {}, behind
    for name, size in (("bulk", _BATCH), ("hundreds", 100)):
        (batch, _, newest), *steps = _wide(first, events + size, behind, batch=size)
        state.update(batch, newest=newest)
        first += events + size
        begun = time.perf_counter()
        for batch, _, newest in steps:
            state.update(batch, newest=newest)
        found[name] = events / (time.perf_counter() - begun)
    return found


# -- memory ----------------------------------------------------------------------------------------


def memory(events: int, keys: int) -> dict[str, float]:
    """Bytes for each stored event with two values, and for each key without any."""
    few = 100
    busy = _one_entity(threads=1)
    begun = _resident()
    for step in _even(events, few):
        _update(busy, step)
    per_event = (_resident() - begun) / busy.rows
    told = busy.bytes / busy.rows
    del busy
    idle = _one_entity(threads=1)
    begun = _resident()
    for step in _even(keys, keys):
        _update(idle, step)
    return {
        "per_event": per_event,
        "per_event_told": told,
        "per_key": (_resident() - begun) / idle.keys,
        "per_key_told": idle.bytes / idle.keys,
        "rows": idle.rows,
    }


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- snapshots -------------------------------------------------------------------------------------


def snapshot(events: int, keys: int) -> dict[str, float]:
    """MB a second that a state is written and read back with, and how long it holds up updates.

    Written means handed to the file system. Updates are batches of a hundred events, given without
    a pause while another thread writes.
    """
    state = _one_entity(threads=CORES)
    steps = _even(events, keys)
    for step in steps:
        _update(state, step)
    with fresh_folder() as folder:
        path = folder / "state"
        seconds = _timed(lambda: _save(state.snapshot(), path))
        size = path.stat().st_size
        restored: list[EntityState] = []
        back = _timed(lambda: restored.append(_load(state, path)))
        if (restored[0].rows, restored[0].keys) != (state.rows, state.keys):
            raise SystemExit(f"{restored[0].rows} rows came back of {state.rows}")
        restored.clear()
        stalls = _stalls(state, path, events)
    return {"mb": size / 1e6, "save": size / 1e6 / seconds, "load": size / 1e6 / back, **stalls}


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _save(buffers: Iterator[memoryview], path: Path) -> None:
    with path.open("wb") as file:
        for buffer in buffers:
            file.write(buffer)


def _load(state: EntityState, path: Path) -> EntityState:
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        return EntityState.restore(state.plan, blocks, key=bytes(16), threads=CORES)


def _stalls(state: EntityState, path: Path, events: int) -> dict[str, float]:
    """Milliseconds of the longest update, without and with a snapshot underway."""
    steps = _hundreds(events)
    alone = max(_timed(lambda: _update(state, next(steps))) for _ in range(2_000))
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        begun = time.perf_counter()
        job = state.begin_snapshot()
        longest = time.perf_counter() - begun
        writing = pool.submit(_save, job.buffers(), path)
        while not writing.done():
            longest = max(longest, _timed(lambda: _update(state, next(steps))))
        writing.result()
    return {"alone_ms": alone * 1e3, "stall_ms": longest * 1e3}


def _hundreds(first: int) -> Iterator[Step]:
    """Batches of a hundred events that follow `first` others, without end."""
    rng = np.random.default_rng([_SEED, first])
    while True:
        place = np.arange(first, first + _EVEN_BATCH)
        times = START_TIME_US + place * (1_000_000 // _EVENTS_A_SECOND)
        block = _payments(place, times, rng.integers(0, 100_000, len(place)), rng)
        for at in range(0, len(place), 100):
            part = times[at : at + 100].copy()
            yield block.slice(at, 100), part, part
        first += _EVEN_BATCH


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "growth": growth,
    "kernels": kernels,
    "live": live,
    "batches": batches,
    "memory": memory,
    "snapshot": snapshot,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
