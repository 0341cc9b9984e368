"""The store example end to end: a server, 20,000 events over HTTP, and a report.

make demo                     # or: python examples/demo.py [--count N] [--port N] [FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track

import tidegate
from tidegate.cli.generate import Tally, post
from tidegate.cli.reconciled import show
from tidegate.cli.rows import print_table
from tidegate.testing import store

RATE_PER_SECOND = 10.0  # of event time: 20,000 events are half an hour of busy shops
CLIENTS = 4
BATCH_RECORDS = 200
READY_SECONDS = 60

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demonstration and report; the exit code says whether all is accounted for."""
    asked = _arguments()
    folder = Path(asked.folder)
    if folder.exists():
        shutil.rmtree(folder)
    _run("new", str(folder), "--example", "store")
    url = f"http://127.0.0.1:{asked.port or _free_port()}"
    begun = time.monotonic()
    with _server(folder, url):
        tally = _produce(asked.count, f"{url}/v1/events")
        sent_seconds = time.monotonic() - begun
        console.print(
            f"sent {tally.accepted + tally.dead:,} records in {sent_seconds:.1f} s, "
            f"server start included; now it is told to stop, and finishes what it took"
        )
    return 0 if _report(folder) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="demo/store")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


def _run(*words: str) -> None:
    console.print(f"$ tidegate {' '.join(words)}")
    command = [sys.executable, "-m", "tidegate", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(folder: Path, url: str) -> Iterator[None]:
    """The server running, and after that ended in good order."""
    port = url.rpartition(":")[2]
    console.print(f"$ tidegate run {folder} --port {port}")
    command = [sys.executable, "-m", "tidegate", "run", str(folder), "--port", port]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, url, folder / "server.log")
        yield
    finally:
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
    total, whole = -(-count // BATCH_RECORDS), Tally()
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = clients.map(lambda batch: next(post(iter([batch]), url=url)), batches)
        for answer in track(answers, "sending", total=total, console=console, transient=True):
            whole.accepted += answer.accepted
            whole.dead += answer.dead
    return whole


def _report(folder: Path) -> bool:
    shop = tidegate.open(folder)
    _section("What came in, and what became of it")
    _ask(
        shop,
        """
        SELECT 'events' AS what, count(*) AS records FROM events
        UNION ALL SELECT 'dead letters', count(*) FROM dead_letters
        UNION ALL SELECT 'sent twice', count(*) FROM duplicates
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
    _section("Reconciliation")
    equal = show(shop.reconcile(), by_hour=False)
    _section("Where it all lies")
    console.print(f"  log, tables and sinks   {folder / 'data'}")
    console.print(f"  the project             {folder}  (tidegate.toml, rules.toml, *.sql)")
    _section("What to type next")
    for words in (
        f"query {folder} \"SELECT * FROM decisions WHERE action = 'block'\"",
        f"deadletters {folder} show",
        f"reconcile {folder} --hours",
        f"run {folder}",
    ):
        console.print(f"  .venv/bin/tidegate {words}", markup=False)
    return equal


def _section(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


def _ask(shop: tidegate.Workspace, sql: str) -> None:
    rows = shop.query(sql).arrow()
    print_table(rows.column_names, [list(row.values()) for row in rows.to_pylist()])


if __name__ == "__main__":
    sys.exit(main())
