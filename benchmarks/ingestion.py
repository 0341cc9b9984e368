"""One ingestion of a file, as a process of its own.

python -m benchmarks.ingestion FILE FOLDER

What it does is `Workspace.ingest`, taken apart in one place: the moment at which all is in the
tables is noted before the project is closed, which also lets the sinks catch up for a while.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tidegate import memory

memory.spare()  # as the command line does, before Arrow is imported

import tidegate
from benchmarks.process import Use
from tidegate.ingest import taking
from tidegate.records import Records
from tidegate.sources.files import read_file
from tidegate.workspace import FINISH_SECONDS


def main(file: str, folder: str) -> None:
    path, shop, begun = Path(file), tidegate.open(folder), time.perf_counter()
    before = Use.now()

    def records() -> Iterator[tuple[Records, str]]:
        for block in read_file(path, schema=shop.project.stream.schema):
            yield block.records, f"file:{path.name}"

    with taking(shop.project) as taker:
        started, opened = time.perf_counter(), Use.now()
        count = sum(map(len, taker.take(records())))
        logged = time.perf_counter()
        finished = taker.finish(timeout_seconds=FINISH_SECONDS)
        ended, used = time.perf_counter(), Use.now()
    closed = time.perf_counter()
    if not finished:
        raise SystemExit("not all records came into the tables")
    found = {
        "events": count,
        "open_seconds": started - begun,
        "logged_seconds": logged - started,
        "seconds": ended - started,
        "close_seconds": closed - ended,
        "cpu_seconds": used.seconds - opened.seconds,
        "tables_mb": used.peak_mb,
        "peak_mb": Use.now().peak_mb,
        "import_mb": before.peak_mb,
        "open_mb": opened.peak_mb,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
