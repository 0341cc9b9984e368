"""A project served as by `tidegate run`, with the bare endpoint beside; and who watches it.

python -m benchmarks.serving FOLDER
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT, Use
from tidegate import memory

_TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.02
_QUIET = 0.1  # of a processor
_QUIET_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    process: int
    port: int

    def use(self) -> Use:
        """What its process has used so far."""
        return Use.now(self.process)

    def children_mb(self) -> float:
        """Peak memory of the processes that it has started, together."""
        return sum(use.peak_mb for use in Use.of_children(self.process))

    def rest(self) -> None:
        """Wait until it has nothing more to do: all is decided, written, and files are merged.

        Raises: TimeoutError.
        """
        deadline, quiet, before = time.perf_counter() + _TIMEOUT_SECONDS, 0, self._spent()
        while quiet < _QUIET_SECONDS:
            if time.perf_counter() > deadline:
                raise TimeoutError("the server does not come to rest")
            time.sleep(1.0)
            now = self._spent()
            quiet = quiet + 1 if now - before < _QUIET else 0
            before = now

    def _spent(self) -> float:
        """Processor time so far, its children's too."""
        return self.use().seconds + sum(use.seconds for use in Use.of_children(self.process))

    def wait_until_written(self, offset: int) -> float:
        """Wait until the tables hold all below an offset; the time then (`perf_counter`).

        Raises: TimeoutError.
        """
        deadline = time.perf_counter() + _TIMEOUT_SECONDS
        while self._written() < offset:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"the tables did not come to offset {offset}")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter()

    def _written(self) -> int:
        """The offset below which everything is committed to the tables, as the server tells it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            told = re.search(rb"^tidegate_warehouse_offset (\S+)$", answer.read(), re.MULTILINE)
        return int(float(told[1])) if told else 0

    def failures(self) -> int:
        """Requests so far that were answered with an error other than 429."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            pattern = rb'^tidegate_http_requests_total\{[^}]*status="([45]\d\d)"[^}]*\} (\S+)$'
            told = re.findall(pattern, answer.read(), re.MULTILINE)
        return int(sum(float(count) for status, count in told if status != b"429"))

    def settle(self, record: bytes) -> None:
        """Wait until all that was sent is in the tables; `record` is one more event, the last."""
        caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        caller.request("POST", "/v1/events", record.strip())
        self.wait_until_written(json.loads(caller.getresponse().read())["next_offset"])
        caller.close()


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The server of a project folder, on a port of its own; told to stop at the end."""
    command = [sys.executable, "-m", "benchmarks.serving", str(folder)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit((folder / "server.log").read_text())
        yield Served(process.pid, int(line))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_TIMEOUT_SECONDS)
        process.stdout.close()


def main(folder: str) -> int:
    memory.spare()  # as the command line does
    from tidegate.project.project import load
    from tidegate.service.server import serve

    def tell(url: str) -> None:
        print(url.rpartition(":")[2], flush=True)

    return serve(load(Path(folder)), port=0, on_ready=tell, bare=True)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
