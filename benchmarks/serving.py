"""A project served as by `tidegate run`, with the bare endpoint beside; and who watches it.

python -m benchmarks.serving FOLDER
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT, Use

_TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    process: int
    port: int
    tables: Path

    def use(self) -> Use:
        """What its process has used so far."""
        return Use.now(self.process)

    def wait_until_written(self, offset: int) -> float:
        """Wait until the tables hold all below an offset; the time then (`perf_counter`).

        Raises: TimeoutError.
        """
        from tidegate.warehouse import checkpoint

        deadline = time.perf_counter() + _TIMEOUT_SECONDS
        while (noted := checkpoint.read(self.tables)) is None or noted.position < offset:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"the tables did not come to offset {offset}")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter()

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
        yield Served(process.pid, int(line), folder / "data" / "tables")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_TIMEOUT_SECONDS)
        process.stdout.close()


def main(folder: str) -> int:
    from tidegate.project.project import load
    from tidegate.service.server import serve

    def tell(url: str) -> None:
        print(url.rpartition(":")[2], flush=True)

    return serve(load(Path(folder)), port=0, on_ready=tell, bare=True)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
