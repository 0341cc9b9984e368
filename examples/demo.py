"""The store example end to end: a server, 20,000 events over HTTP, and a report.

make demo                     # or: python examples/demo.py [--count N] [--port N] [FOLDER]
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tidegate
from tidegate.cli.generate import Tally, post
from tidegate.cli.progress import counting, stepping
from tidegate.cli.reconciled import show
from tidegate.cli.rows import print_table
from tidegate.cli.terminal import say
from tidegate.testing import store

RATE_PER_SECOND = 10.0  # of event time: 20,000 events are half an hour of busy shops
CLIENTS = 4
BATCH_RECORDS = 200
READY_SECONDS = 60
DELIVERY_SECONDS = 30
METRIC = re.compile(r"^(tidegate_\S+) (\S+)$", re.MULTILINE)


def main() -> int:
    """Run the demonstration and report; the exit code says whether all is accounted for."""
    asked = _arguments()
    folder = Path(asked.folder)
    _clear(folder)
    _run("new", str(folder), "--example", "store")
    url = f"http://127.0.0.1:{asked.port or _free_port()}"
    with _server(folder, url):
        _send(asked.count, url)
        _wait_for_delivery(url)
    return 0 if _report(folder) else 1


def _clear(folder: Path) -> None:
    """Remove what an earlier demonstration left, and nothing else."""
    if (folder / "tidegate.toml").is_file() and (folder / "server.log").is_file():
        shutil.rmtree(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="demo/store")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


def _run(*words: str) -> None:
    say(f"$ tidegate {' '.join(words)}", style="bold")
    command = [sys.executable, "-m", "tidegate", *words]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(folder: Path, url: str) -> Iterator[None]:
    """The server running, and after that ended in good order."""
    port = url.rpartition(":")[2]
    say(f"$ tidegate run {folder} --port {port}", style="bold")
    command = [sys.executable, "-m", "tidegate", "run", str(folder), "--port", port]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, url, folder / "server.log")
        yield
    finally:
        with stepping("stopping: the server finishes what it took"):
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=60)
    if code != 0:
        raise SystemExit(f"the server ended with {code}; see {folder / 'server.log'}")


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"the server did not come up; see {log}")


def _send(count: int, url: str) -> None:
    begun = time.monotonic()
    tally = _produce(count, f"{url}/v1/events")
    seconds = time.monotonic() - begun
    say(
        f"sent {tally.accepted + tally.dead:,} records over HTTP in {seconds:.1f} s:"
        f" {tally.accepted:,} accepted, {tally.dead:,} refused and kept as dead letters"
    )


def _produce(count: int, url: str) -> Tally:
    """Send events by several clients at once: 10 % faulty, some unreadable, some sent twice."""
    start = datetime.now(UTC) - timedelta(seconds=count / RATE_PER_SECOND)
    batches = store.generate_batches(
        count,
        seed=7,
        start_time_us=int(start.timestamp() * 1e6),
        batch_records=BATCH_RECORDS,
        rate_per_second=RATE_PER_SECOND,
        missing_store_share=0.09,
        unreadable_share=0.01,
        duplicate_share=0.005,
    )
    whole = Tally()
    with ThreadPoolExecutor(CLIENTS) as clients, counting("sending", count) as sent:
        for answer in clients.map(lambda batch: next(post([batch], url=url)), batches):
            sent(answer.accepted + answer.dead)
            whole.accepted += answer.accepted
            whole.dead += answer.dead
    return whole


def _wait_for_delivery(url: str) -> None:
    """Wait for the sink with a file for each event; those with few large files flush at the end."""
    first = lag = _lag(url)
    deadline = time.monotonic() + DELIVERY_SECONDS
    with stepping("delivering what is suspicious") as delivered:
        while lag > 0 and time.monotonic() < deadline:
            delivered(int(first - lag), int(first))
            time.sleep(0.1)
            lag = _lag(url)


def _lag(url: str) -> float:
    """Offsets that are not yet in the tables, and those not yet delivered from there."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        found = {name: float(value) for name, value in METRIC.findall(answer.read().decode())}
        ahead = found["tidegate_log_next_offset"] - found["tidegate_warehouse_offset"]
        return ahead + found['tidegate_sink_lag_records{sink="fraud"}']
    return 0.0


def _report(folder: Path) -> bool:
    shop = tidegate.open(folder)
    _section("What came in, and what became of it")
    _ask(
        shop,
        """
        SELECT 'events' AS what, count(*) AS records FROM events
        UNION ALL SELECT 'dead letters', count(*) FROM dead_letters
        UNION ALL SELECT 'duplicates', count(*) FROM duplicates
        """,
    )
    _section("Decisions by action")
    _ask(shop, "SELECT action, count(*) AS events FROM decisions GROUP BY 1 ORDER BY 2 DESC")
    _section("Rules that hit")
    _ask(
        shop,
        """
        SELECT r.name AS rule, r.action, r.mode, count(*) AS hits,
               any_value(r.reason) AS "for example"
        FROM (SELECT unnest(rules) AS r FROM decisions) GROUP BY ALL ORDER BY hits DESC
        """,
    )
    _section("Suspicious orders: windows of five minutes, the fullest")
    _ask(
        shop,
        """
        SELECT "WindowStart", "WindowEnd", store_id, len(ids) AS orders
        FROM suspicious_orders ORDER BY orders DESC, "WindowStart", store_id LIMIT 5
        """,
    )
    _section("Dead letters by reason")
    _ask(shop, "SELECT reason, count(*) AS records FROM dead_letters GROUP BY 1 ORDER BY 2 DESC")
    _section("Reconciliation: each stage against the one before it, id by id")
    equal = show(shop.reconcile(), by_hour=False)
    _section("Where it all lies")
    for place, what in (
        ("", "the project: tidegate.toml, rules.toml and SQL files"),
        ("data/log.sqlite", "the log, every record as it came"),
        ("data/tables", "Delta tables, for `tidegate query` or any reader of Delta"),
        ("data/objects", "what the sinks delivered: Avro and JSON files"),
    ):
        say(f"  {folder / place!s:<{len(str(folder)) + 16}}  {what}")
    _section("What to type next")
    for words in (
        f"query {folder} \"SELECT * FROM decisions WHERE action = 'block' LIMIT 5\"",
        f"deadletters {folder} show --limit 3",
        f"reconcile {folder} --hours",
        f"run {folder}",
    ):
        say(f"  {_command()} {words}")
    return equal


def _command() -> Path:
    path = Path(sys.executable).with_name("tidegate")
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _section(title: str) -> None:
    say()
    say(title, style="bold")


def _ask(shop: tidegate.Workspace, sql: str) -> None:
    rows = shop.query(sql).arrow()
    print_table(rows.column_names, [list(row.values()) for row in rows.to_pylist()])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except tidegate.TidegateError as error:
        sys.exit(f"error: {error}")
