"""Outsides that fail, hang, fill up and come back."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sink_rows import S3_ENVIRONMENT, S3_SECRETS, captured, opened, require_s3, settings
from sink_servers import s3_server, unused_port  # noqa: F401 - fixtures

from tidegate.clock import SystemClock
from tidegate.errors import InputError, StorageFullError, UnreachableError
from tidegate.memory import Turn
from tidegate.sinks.contract import Delivery, Sink
from tidegate.sinks.courier import Pace
from tidegate.sinks.ledger import Ledger
from tidegate.sinks.runner import SinkRunner
from tidegate.sinks.store import open_store
from tidegate.testing.sinks import RowsFeed, offsets_of
from waiting import PATIENCE_SECONDS

ROWS = captured(30)
WHOLE = Delivery(0, 30, ROWS)
QUICK = Pace(every_us=1_000, rows_max=10, pause_min_us=5_000, pause_max_us=20_000)
_SOON_SECONDS = PATIENCE_SECONDS  # for what should happen at once, on a machine under load


def on_s3(
    endpoint: str, folder: Path, *, bucket: str = "bucket", timeout_us: int = 10_000_000
) -> Sink:
    """A sink on an S3 server that may not be there."""
    require_s3()
    written = settings(
        f"s3://{bucket}/blobs",
        options={"endpoint_url": endpoint},
        options_env=S3_SECRETS,
        timeout_us=timeout_us,
    )
    return opened(written, ROWS, folder, **S3_ENVIRONMENT)


def soon(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true before long."""
    until = time.monotonic() + _SOON_SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "sinks.sqlite")) as made:
        yield made


@pytest.fixture
def run(ledger: Ledger) -> Iterator[Callable[..., SinkRunner]]:
    """How a sink is put to work; what still runs at the end is stopped."""
    with ExitStack() as stack:

        def started(name: str, sink: Sink, **more: Any) -> SinkRunner:
            runner = SinkRunner(
                name, sink=sink, ledger=ledger, clock=SystemClock(), random=lambda: 0.5,
                **{"pace": QUICK, "feed": RowsFeed(ROWS, end=30), **more},
            )  # fmt: skip
            runner.start()
            stack.callback(runner.stop, timeout_seconds=_SOON_SECONDS)
            return runner

        yield started


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def refusing(status: int) -> Iterator[str]:
    """The address of a server that answers everything with this status."""

    class Refusal(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients wait for its `100 Continue`

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing to tell."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def mounted(folder: Path, *options: str) -> bool:
    """Whether a small file system could be mounted there; only some may do that."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    folder = tmp_path / "disk"
    if not mounted(folder, "size=64k"):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


# Errors of the store


def test_a_server_that_is_down_is_unreachable(tmp_path: Path, unused_port: int) -> None:
    sink = on_s3(f"http://127.0.0.1:{unused_port}", tmp_path)
    with pytest.raises(UnreachableError, match="s3://bucket/blobs"):
        sink.write(WHOLE)


def test_a_server_that_does_not_answer_is_unreachable_in_time(tmp_path: Path, silent: str) -> None:
    sink = on_s3(silent, tmp_path, timeout_us=500_000)
    with pytest.raises(UnreachableError, match="no answer in time"):
        sink.write(WHOLE)


def test_a_bucket_that_is_not_there_is_unreachable(tmp_path: Path, s3_server: str) -> None:
    sink = on_s3(s3_server, tmp_path, bucket="no-such-bucket")
    with pytest.raises(UnreachableError, match="no-such-bucket"):
        sink.write(WHOLE)


@pytest.mark.parametrize(
    ("status", "error"), [(500, UnreachableError), (503, UnreachableError), (403, StorageFullError)]
)
def test_a_server_that_refuses_is_told_apart_by_what_helps(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    with refusing(status) as endpoint, pytest.raises(error, match="s3://bucket/blobs") as told:
        on_s3(endpoint, tmp_path).write(WHOLE)
    assert "no answer" not in str(told.value)


def test_no_error_tells_a_secret(tmp_path: Path, unused_port: int) -> None:
    endpoint = f"http://127.0.0.1:{unused_port}/hush-hush"
    with pytest.raises(UnreachableError) as error:
        on_s3(endpoint, tmp_path).write(WHOLE)
    assert "***" in str(error.value)
    assert "hush-hush" not in str(error.value)


def test_a_folder_below_a_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="file/blobs"):
        opened(settings("file/blobs"), ROWS, tmp_path).write(WHOLE)


def test_a_read_only_folder_cannot_be_written(tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageFullError, match="Read-only"):
        opened(settings(str(small_disk)), ROWS, tmp_path).write(WHOLE)


def test_a_full_disk_leaves_no_file_in_part(tmp_path: Path, small_disk: Path) -> None:
    sink = opened(settings(str(small_disk)), ROWS, tmp_path)
    (small_disk / "ballast").write_bytes(bytes(60_000))
    with pytest.raises(StorageFullError):
        sink.write(WHOLE)
    assert offsets_of(sink) == []
    (small_disk / "ballast").unlink()
    sink.write(WHOLE)
    assert offsets_of(sink) == list(range(30))


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    written = settings("s3://b", options_env={"key": "NOT_SET"})
    with pytest.raises(InputError, match="`NOT_SET`"):
        opened(written, ROWS, tmp_path)


def test_a_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: object, **__: object) -> None:
        raise ImportError("no s3fs")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"pip install tidegate\[s3\]"):
        open_store("s3://b", folder=tmp_path, options={}, secrets={}, timeout_seconds=1)


def test_a_scheme_that_nothing_serves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carrier-pigeon"):
        open_store("carrier-pigeon://b", folder=tmp_path, options={}, secrets={}, timeout_seconds=1)


def test_a_path_that_does_not_fit_the_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sink `objects`: the path `x/\{nowhere\}`"):
        opened(settings("b", path="x/{nowhere}"), ROWS, tmp_path)


# Runners


def test_a_sink_delivers_in_its_own_thread(run: Callable[..., SinkRunner], tmp_path: Path) -> None:
    sink = opened(settings("blobs"), ROWS, tmp_path)
    runner = run("s", sink)
    assert soon(lambda: runner.status().rows == 30)
    assert offsets_of(sink) == list(range(30))


def test_stopping_does_not_wait_for_an_outside_that_hangs(
    run: Callable[..., SinkRunner], tmp_path: Path, silent: str
) -> None:
    runner = run("s", on_s3(silent, tmp_path, timeout_us=600_000_000))
    began = time.monotonic()
    assert not runner.stop(timeout_seconds=0.2, flush=True)
    assert time.monotonic() - began < _SOON_SECONDS


def test_a_sink_that_hangs_holds_up_no_other(
    run: Callable[..., SinkRunner], tmp_path: Path, silent: str
) -> None:
    hanging = run("hanging", on_s3(silent, tmp_path, timeout_us=3_000_000))
    fine = run("fine", opened(settings("blobs"), ROWS, tmp_path))
    assert soon(lambda: fine.status().rows == 30)
    assert hanging.status().rows == 0


class Door:
    """A sink behind a door; while it is shut, writing fails."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.is_open = threading.Event()
        self.is_closed = False

    def write(self, delivery: Delivery) -> None:
        if not self.is_open.is_set():
            raise UnreachableError("cannot reach the other side")
        self.sink.write(delivery)

    def delivered(self) -> Iterator[Any]:
        return self.sink.delivered()

    def close(self) -> None:
        self.is_closed = True


def test_a_sink_catches_up_when_the_outside_is_back(
    run: Callable[..., SinkRunner], tmp_path: Path
) -> None:
    door = Door(opened(settings("blobs"), ROWS, tmp_path))
    runner = run("s", door)
    assert soon(lambda: runner.status().failures >= 3)
    down = runner.status()
    assert (down.error, down.lag) == ("cannot reach the other side", 30)
    door.is_open.set()
    assert soon(lambda: runner.status().rows == 30)
    assert (runner.status().failures, runner.status().error) == (0, None)
    assert offsets_of(door) == list(range(30))


def test_a_server_that_comes_up_late_gets_every_row_once(
    run: Callable[..., SinkRunner], tmp_path: Path, unused_port: int
) -> None:
    require_s3()
    import fsspec
    from moto.server import ThreadedMotoServer

    endpoint = f"http://127.0.0.1:{unused_port}"
    sink = on_s3(endpoint, tmp_path, bucket="late")
    runner = run("s", sink)
    assert soon(lambda: runner.status().failures >= 1)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=unused_port, verbose=False)
    server.start()
    options = {"key": "a", "secret": "b", "endpoint_url": endpoint}
    fsspec.filesystem("s3", skip_instance_cache=True, **options).mkdir("late")
    assert soon(lambda: runner.status().rows == 30)
    assert offsets_of(sink) == list(range(30))
    runner.stop(timeout_seconds=_SOON_SECONDS)
    server.stop()


def test_stopping_with_flush_delivers_what_is_young(
    run: Callable[..., SinkRunner], tmp_path: Path, ledger: Ledger
) -> None:
    ledger.open("s")
    ledger.skip("s", first=0, until=25)
    sink = opened(settings("blobs"), ROWS, tmp_path)
    feed = RowsFeed(ROWS, end=25)
    runner = run("s", sink, feed=feed, pace=Pace(every_us=3_600_000_000))
    feed.reached = 30
    runner.wake(30)
    assert runner.stop(timeout_seconds=_SOON_SECONDS, flush=True)
    assert offsets_of(sink) == [25, 26, 27, 28, 29]


def test_the_lag_is_current_while_the_outside_hangs(
    run: Callable[..., SinkRunner], tmp_path: Path, silent: str
) -> None:
    runner = run("s", on_s3(silent, tmp_path, timeout_us=3_000_000))
    runner.wake(1_000)
    assert runner.status().lag == 1_000


def test_the_sink_is_closed_when_its_thread_ends(
    run: Callable[..., SinkRunner], tmp_path: Path
) -> None:
    door = Door(opened(settings("blobs"), ROWS, tmp_path))
    runner = run("s", door)
    assert not door.is_closed
    assert runner.stop(timeout_seconds=_SOON_SECONDS)
    assert door.is_closed


def test_a_busy_sink_begins_nothing_while_others_take_memory(
    run: Callable[..., SinkRunner], tmp_path: Path
) -> None:
    looks: list[None] = []

    def busy() -> bool:
        looks.append(None)
        return True

    turn = Turn()
    sink = opened(settings("blobs"), ROWS, tmp_path)
    with turn.taken(seconds=0):
        runner = run("s", sink, busy=busy, turn=turn)
        assert soon(lambda: len(looks) > 3)
        assert runner.status().deliveries == 0
    assert soon(lambda: runner.status().rows == 30)


def test_a_sink_waits_for_nobody_where_nothing_is_urgent(
    run: Callable[..., SinkRunner], tmp_path: Path
) -> None:
    turn = Turn()
    with turn.taken(seconds=0):
        runner = run("s", opened(settings("blobs"), ROWS, tmp_path), turn=turn)
        assert soon(lambda: runner.status().rows == 30)


def test_a_runner_that_was_never_started_can_be_stopped(ledger: Ledger, tmp_path: Path) -> None:
    runner = SinkRunner(
        "s", sink=opened(settings("blobs"), ROWS, tmp_path), feed=RowsFeed(ROWS, end=30),
        ledger=ledger, pace=QUICK, clock=SystemClock(), random=lambda: 0.0,
    )  # fmt: skip
    assert runner.stop(timeout_seconds=0)
