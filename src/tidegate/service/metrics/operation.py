"""What an operator watches: times of stages, lags, snapshots, queries, disk, process."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from tidegate import __version__
from tidegate.service.state import State

_BEGUN_AT = time.time()


def operation(state: State) -> Iterator[Metric]:
    """The metrics, read when they are asked for."""
    yield from _stages(state)
    yield from _lags(state)
    yield from _snapshot(state)
    yield from _queries(state)
    yield from _places(state)
    yield from _process(state)


def _stages(state: State) -> Iterator[Metric]:
    stages = state.pipeline.stages
    taken = HistogramMetricFamily(
        "tidegate_stage_seconds", "Time that a stage takes for a batch", labels=["stage"]
    )
    for name, histogram in stages.by_name().items():
        taken.add_metric([name], histogram.cumulated(), histogram.seconds)
    yield taken
    yield HistogramMetricFamily(
        "tidegate_decision_delay_seconds",
        "Time from arrival to decision, of the oldest record of a batch",
        buckets=stages.delay.cumulated(),
        sum_value=stages.delay.seconds,
    )


def _lags(state: State) -> Iterator[Metric]:
    """How far each consumer of the log is behind its end."""
    pipeline = state.pipeline
    end = pipeline.log.next_offset
    tables = GaugeMetricFamily(
        "tidegate_table_lag_records", "Offsets that a table does not hold yet", labels=["table"]
    )
    for name, offset in pipeline.warehouse.offsets.items():
        tables.add_metric([name], max(0, end - offset))
    yield tables
    needed = GaugeMetricFamily(
        "tidegate_log_consumer_lag_records",
        "Offsets that a consumer may still ask the log for",
        labels=["consumer"],
    )
    for name, offset in pipeline.log.positions().items():
        needed.add_metric([name], max(0, end - offset))
    yield needed


def _snapshot(state: State) -> Iterator[Metric]:
    newest = state.pipeline.snapshots.newest()
    if newest is None:
        return
    offset, size, written_at = newest
    lag = max(0, state.pipeline.log.next_offset - offset)
    yield GaugeMetricFamily(
        "tidegate_snapshot_age_seconds",
        "Age of the newest snapshot; an idle stream needs no newer one",
        value=max(0.0, time.time() - written_at),
    )
    yield GaugeMetricFamily(
        "tidegate_snapshot_lag_records", "Records that a start would decide again", value=lag
    )
    yield GaugeMetricFamily("tidegate_snapshot_bytes", "Size of the newest snapshot", value=size)


def _queries(state: State) -> Iterator[Metric]:
    pool = state.queries
    outcomes = CounterMetricFamily(
        "tidegate_queries", "Queries over HTTP by what became of them", labels=["outcome"]
    )
    for outcome, count in dict(pool.outcomes).items():
        outcomes.add_metric([outcome], count)
    yield outcomes
    yield HistogramMetricFamily(
        "tidegate_query_seconds",
        "Time that a query ran",
        buckets=pool.latency.cumulated(),
        sum_value=pool.latency.seconds,
    )
    yield GaugeMetricFamily("tidegate_queries_running", "Queries that run", value=pool.running)
    yield GaugeMetricFamily("tidegate_queries_waiting", "Queries that wait", value=pool.waiting)


def _places(state: State) -> Iterator[Metric]:
    folder = state.pipeline.folder
    disk = shutil.disk_usage(folder.root)
    text = "Free space on the disk of the data folder"
    yield GaugeMetricFamily("tidegate_disk_free_bytes", text, value=disk.free)
    text = "Size of the disk of the data folder"
    yield GaugeMetricFamily("tidegate_disk_bytes", text, value=disk.total)
    files = (folder.log, folder.log.with_name(folder.log.name + "-wal"))
    yield GaugeMetricFamily(
        "tidegate_log_bytes", "Size of the log's files", value=sum(map(_size, files))
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _process(state: State) -> Iterator[Metric]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield CounterMetricFamily(
        "process_cpu_seconds", "Processor time", value=used.ru_utime + used.ru_stime
    )
    text = "When the process began, in seconds since 1970"
    yield GaugeMetricFamily("process_start_time_seconds", text, value=_BEGUN_AT)
    count = sum(1 for _ in Path("/proc/self/fd").iterdir())
    yield GaugeMetricFamily("process_open_fds", "Open files and connections", value=count)
    yield InfoMetricFamily(
        "tidegate_build",
        "What runs, and which version of the project decides",
        value={"version": __version__, "decides": state.pipeline.engine.program.version},
    )
