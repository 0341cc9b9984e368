"""The picture that `tidegate top` shows, renewed until it is told to stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidegate.cli.scrape import Change, Scrape, Source
from tidegate.cli.terminal import plain
from tidegate.errors import UnreachableError

_WIDTH = 80  # of what is no terminal
_RULES = 8
_LAGS = 6
_STAGES = ("decode", "commit", "engine", "features", "rules", "write")
_NONE = "-"
_FIRST_SECONDS_MAX = 1.0

__all__ = ["Source", "frame", "watch"]


def watch(source: Source, *, seconds: float, once: bool = False) -> None:
    """Show the server's picture every so many seconds; with `once`, print one and return.

    Raises: UnreachableError, RequestError if the server does not answer at first; later it waits.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, emoji=False)
    before = source.read()
    if once:
        time.sleep(seconds)
        console.print(frame(source.url, Change(before, source.read())))
        return
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            for picture in _pictures(source, before, seconds):
                live.update(picture, refresh=True)
    except KeyboardInterrupt:
        return


def _pictures(source: Source, before: Scrape, seconds: float) -> Iterator[RenderableType]:
    pause = min(seconds, _FIRST_SECONDS_MAX)
    while True:
        time.sleep(pause)
        pause = seconds
        try:
            after = source.read()
        except UnreachableError as error:
            yield Text(f"{error}; waiting", style="bold red")
            continue
        yield frame(source.url, Change(before, after))
        before = after


def frame(url: str, change: Change) -> RenderableType:
    """The picture of one stretch of time, 80 columns wide."""
    return Group(
        _head(url, change.after),
        *map(plain, _totals(change)),
        Text(),
        _latencies(change),
        Text(),
        _lags(change.after),
        Text(),
        _rules(change),
    )


def _head(url: str, now: Scrape) -> Text:
    (build, *_) = [dict(labels) for labels in now.samples.get("tidegate_build_info", {})] or [{}]
    up = now.value("tidegate_up") == 1
    text = plain(f"{url}  ")
    text.append("deciding" if up else "STOPPED", style="bold green" if up else "bold red")
    begun = now.value("process_start_time_seconds")
    age = _span(time.time() - begun) if begun else _NONE
    return text.append(f"  project {build.get('decides', _NONE)}  up {age}")


def _totals(change: Change) -> Iterator[str]:
    now = change.after
    actions = change.rates("tidegate_decisions_total", "action")
    shown = "  ".join(f"{name} {_rate(actions.get(name, 0.0))}" for name in _actions(actions))
    yield f"events/s     {_rate(change.rate('tidegate_events_total')):>9}   {shown}"
    dead = change.rate("tidegate_dead_letters_total")
    twice = change.rate("tidegate_duplicates_total")
    yield (
        f"requests/s   {_rate(change.rate('tidegate_http_requests_total')):>9}   "
        f"dead letters {_rate(dead)}  duplicates {_rate(twice)}  {_refusals(change)}"
    )
    cpu = change.rate("process_cpu_seconds_total") * 100
    yield f"processor    {cpu:>7.0f} %   resident {_size(now.value(_RESIDENT))}  {_state(now)}"
    yield (
        f"backlog      {_count(now.value('tidegate_backlog_records')):>9}   "
        f"door {_count(now.value('tidegate_door_queued_records'))}  "
        f"tail {_size(now.value('tidegate_tail_bytes'))}  "
        f"pending rows {_count(now.value('tidegate_writer_pending_rows'))}"
    )
    yield (
        f"disk free    {_size(now.value('tidegate_disk_free_bytes')):>9}   "
        f"log {_size(now.value('tidegate_log_bytes'))}  {_snapshot(now)}"
    )


_RESIDENT = "process_resident_memory_bytes"


def _actions(found: dict[str, float]) -> list[str]:
    known = ["approve", "review", "block"]
    return known + sorted(set(found) - set(known))


def _refusals(change: Change) -> str:
    by_status = change.rates("tidegate_http_requests_total", "status")
    late = sum(rate for status, rate in by_status.items() if status == "429")
    failed = sum(rate for status, rate in by_status.items() if status.startswith("5"))
    return f"429 {_rate(late)}  5xx {_rate(failed)}"


def _state(now: Scrape) -> str:
    features = sum(now.by("tidegate_feature_bytes", "entity").values())
    return f"features {_size(features)}  ids {_size(now.value('tidegate_dedupe_bytes'))}"


def _snapshot(now: Scrape) -> str:
    if "tidegate_snapshot_age_seconds" not in now.samples:
        return "no snapshot yet"
    age = _span(now.value("tidegate_snapshot_age_seconds"))
    lag = _count(now.value("tidegate_snapshot_lag_records"))
    return f"snapshot {age} old, {lag} records behind"


def _latencies(change: Change) -> Table:
    table = _table(("stage", "per second", "p50", "p99"))
    rows: list[tuple[str, str, dict[str, str]]] = [
        (name, "tidegate_stage_seconds", {"stage": name}) for name in _STAGES
    ]
    rows.append(("arrival to decision", "tidegate_decision_delay_seconds", {}))
    routes = sorted(change.after.by("tidegate_http_request_seconds_count", "route"))
    rows += [
        (f"HTTP {route}", "tidegate_http_request_seconds", {"route": route})
        for route in routes
        if route.startswith("/v1/")
    ]
    for shown, name, labels in rows:
        quantiles = (change.quantile(name, share, **labels) for share in (0.5, 0.99))
        rate = _rate(change.count(name, **labels))
        table.add_row(plain(shown), rate, *map(_latency, quantiles))
    return table


def _lags(now: Scrape) -> Table:
    table = _table(("consumer", "lag", "failures"))
    failures = now.by("tidegate_sink_failures_total", "sink")
    sinks = now.by("tidegate_sink_lag_records", "sink")
    rows = [(f"sink {n}", lag, _count(failures.get(n, 0.0))) for n, lag in sinks.items()]
    tables = now.by("tidegate_table_lag_records", "table")
    rows += [(f"table {name}", lag, "") for name, lag in tables.items()]
    for name, lag, failed in sorted(rows, key=lambda row: (-row[1], row[0]))[:_LAGS]:
        table.add_row(plain(name), _count(lag), failed)
    return table


def _rules(change: Change) -> Table:
    table = _table(("rule", "mode", "hits a second", "hits"))
    before = change.before.samples.get("tidegate_rule_hits_total", {})
    rows = []
    for labels, total in change.after.samples.get("tidegate_rule_hits_total", {}).items():
        grown = max(0.0, total - before.get(labels, 0.0)) / change.seconds
        of = dict(labels)
        rows.append((grown, total, of.get("rule", ""), of.get("mode", "")))
    for grown, total, rule, mode in sorted(rows, key=lambda r: (-r[0], -r[1], r[2]))[:_RULES]:
        table.add_row(plain(rule), mode, _rate(grown), _count(total))
    return table


def _table(names: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, name in enumerate(names):
        is_text = not place or name == "mode"
        table.add_column(
            name,
            justify="left" if is_text else "right",
            min_width=28 if not place else 10,
            max_width=44,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return _NONE
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _size(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
