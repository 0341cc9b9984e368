"""What the pipeline and the service are doing, read when Prometheus asks."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tidegate.service.metrics.operation import operation
from tidegate.service.state import State

_STATM = Path("/proc/self/statm")


class ServiceCollector(Collector):
    """Reads everything anew at each scrape, so that nothing is counted on the way of an event."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        yield from self._counts()
        yield from self._positions()
        yield from self._held()
        yield from self._features()
        yield from self._sinks()
        yield from self._requests()
        yield from self._scores()
        yield from operation(self._state)

    def _counts(self) -> Iterator[Metric]:
        """What the engine has made of the log since the process began."""
        # A pipeline that does not count (in tests) is shown without counts.
        counters: Any = getattr(self._state.pipeline, "counters", None)
        if counters is None:
            return
        yield _total("tidegate_events", "Events taken", counters.events)
        yield _by("tidegate_decisions", "Decisions by action", "action", counters.decisions)
        yield _by("tidegate_dead_letters", "Dead letters by reason", "reason", counters.dead)
        yield _hits(counters.rules)
        yield _by("tidegate_duplicates", "Duplicates by source", "source", counters.duplicates)
        yield _total("tidegate_late_rows", "Rows too late for their window", counters.late)
        rows = counters.window_rows
        yield _by("tidegate_window_rows", "Rows of window queries", "window", rows)

    def _positions(self) -> Iterator[Metric]:
        pipeline = self._state.pipeline
        end, engine = pipeline.log.next_offset, pipeline.engine.offset
        warehouse = pipeline.warehouse.position
        yield _gauge("tidegate_up", "1 while the engine decides", pipeline.failure is None)
        yield _gauge("tidegate_log_next_offset", "Offset that the next record gets", end)
        yield _gauge("tidegate_engine_offset", "Offset that is decided next", engine)
        yield _gauge("tidegate_warehouse_offset", "Offset below which tables hold all", warehouse)
        yield _gauge("tidegate_backlog_records", "Records not yet decided", end - engine)
        queued = pipeline.door.queued_records
        yield _gauge("tidegate_door_queued_records", "Records that wait for the log", queued)
        waiting = pipeline.door.queued_bytes
        yield _gauge("tidegate_door_queued_bytes", "Bytes that wait for the log", waiting)
        held = pipeline.tail.bytes_held
        yield _gauge("tidegate_tail_bytes", "Bytes in the log that wait to be decided", held)

    def _held(self) -> Iterator[Metric]:
        pipeline, budget = self._state.pipeline, self._state.budget
        writer, dedupe = pipeline.writer, pipeline.engine.dedupe
        pending, failures = writer.pending_rows, writer.failures
        yield _gauge("tidegate_writer_pending_rows", "Rows that wait for the tables", pending)
        yield _gauge("tidegate_writer_failures", "Failed writes since the last good one", failures)
        windows = {n: s.rows_held for n, s in dict(pipeline.engine.windows).items()}
        held = GaugeMetricFamily(
            "tidegate_window_rows_held", "Rows that wait for a window to close", labels=["window"]
        )
        for name, rows in windows.items():
            held.add_metric([name], rows)
        yield held
        yield _gauge("tidegate_dedupe_ids", "Ids remembered", dedupe.ids_held)
        yield _gauge("tidegate_dedupe_bytes", "Memory of the ids", dedupe.bytes_held)
        labels = pipeline.engine.waiting
        yield _gauge("tidegate_labels_waiting", "Labels that wait for their event", len(labels))
        gone = "Labels that were let go before their event came"
        yield _total("tidegate_labels_let_go", gone, labels.let_go)
        yield _gauge("tidegate_http_body_bytes_held", "Bytes of bodies held", budget.held)
        yield _gauge("process_resident_memory_bytes", "Resident memory", _resident_bytes())

    def _features(self) -> Iterator[Metric]:
        """What the features remember, by the columns that their windows are partitioned by."""
        state = getattr(self._state.pipeline.engine, "features", None)
        if state is None:
            return
        held: dict[str, Counter[str]] = {name: Counter() for name in _FEATURE_GAUGES}
        for usage in state.usage():
            entity = ",".join(usage.entity.plan.keys)
            for name in _FEATURE_GAUGES:
                held[name][entity] += getattr(usage, name)
        for name, text in _FEATURE_GAUGES.items():
            family = GaugeMetricFamily(f"tidegate_feature_{name}", text, labels=["entity"])
            for entity, value in held[name].items():
                family.add_metric([entity], value)
            yield family

    def _sinks(self) -> Iterator[Metric]:
        # As with the counters: a pipeline without sinks has none to show.
        runners: Any = getattr(self._state.pipeline, "sinks", ())
        statuses = {r.name: r.status() for r in runners}
        if not statuses:
            return
        lag = GaugeMetricFamily(
            "tidegate_sink_lag_records", "Offsets not yet delivered", labels=["sink"]
        )
        for name, status in statuses.items():
            lag.add_metric([name], status.lag)
        yield lag
        for key, text in _SINK_COUNTS.items():
            counts = {name: getattr(status, key) for name, status in statuses.items()}
            yield _by(f"tidegate_sink_{key}", text, "sink", counts)

    def _requests(self) -> Iterator[Metric]:
        tally = self._state.tally
        requests = CounterMetricFamily(
            "tidegate_http_requests",
            "Requests; status 0: the sender went away",
            labels=["method", "route", "status"],
        )
        for (method, route, status), count in dict(tally.requests).items():
            requests.add_metric([method, route, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "tidegate_http_request_seconds",
            "Time to answer, but for those refused with 429",
            labels=["route"],
        )
        for route, latency in dict(tally.latencies).items():
            seconds.add_metric([route], latency.cumulated(), latency.seconds)
        yield seconds

    def _scores(self) -> Iterator[Metric]:
        desk, recorder = self._state.desk, self._state.recorder
        waiting, given = (desk.waiting if desk else 0), (recorder.given if recorder else 0)
        waiting += self._state.porters_wait()
        yield _gauge("tidegate_score_waiting", "Events whose decision somebody waits for", waiting)
        yield _total("tidegate_score_fallbacks", "Answers without a decision in time", given)


_FEATURE_GAUGES = {
    "keys": "Keys that windows of features remember",
    "rows": "Events that windows of features remember",
    "bytes": "Memory of the windows of features",
}
_SINK_COUNTS = {
    "rows": "Rows delivered",
    "deliveries": "Deliveries made",
    "failures": "Attempts that failed",
}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    # A copy in one step: the engine goes on counting meanwhile.
    for key, value in dict(values).items():
        family.add_metric([key], float(value))
    return family


def _hits(rules: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(
        "tidegate_rule_hits", "Events that a rule hit, by rule and mode", labels=["rule", "mode"]
    )
    for (rule, mode), count in dict(rules).items():
        family.add_metric([rule, mode], count)
    return family


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
