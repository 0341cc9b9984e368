"""A process that runs queries and nothing else: `python -m tidegate.warehouse.worker TABLES`.

A query that somebody else wrote can take all memory, run on after it was told to stop, or bring
down the library that runs it. Here it takes down a process that holds nothing: one that can write
no file, has no environment, may take so much memory and no more, and yields the processor to the
decisions. Whoever started it ends it when the time is over.

It reads questions from standard input and writes answers to standard output, each behind its length
(four bytes, big-endian): a `Question`; a `Told`, followed by the bytes of the body that it
announces. When standard input ends, the process does.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import msgspec

from tidegate import memory
from tidegate.hiding import Hiding

_SLACK_BYTES = 256 << 20  # stacks of threads, pages of files, the answer itself
_MESSAGE_CHARACTERS_MAX = 4_000
_BATCH_ROWS = 2_048  # what is computed ahead of what is taken
_NICE = 10
_PATH = re.compile(r"(?<![\w./])/(?:[\w.@+=%-]+/)*[\w.@+=%-]+")

Scalar = str | int | float | bool | None
Value = Scalar | list[Scalar]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A query and what it may take."""

    sql: str
    dialect: str
    parameters: dict[str, Value] | list[Value] | None
    format: str
    rows_max: int
    bytes_max: int
    memory_bytes: int
    threads: int
    hiding: Hiding | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a query; `code` is empty where it went well, and `size` bytes follow."""

    code: str = ""
    message: str = ""
    rows: int = 0
    truncated: bool = False
    size: int = 0


def main() -> None:
    """Answer questions until there are no more."""
    memory.spare()  # before Arrow is imported
    # Whatever a library prints must not get among the answers.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _confine()
    root = Path(sys.argv[1])
    _warm_up(root)
    out.write(b"+")
    out.flush()
    questions: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, questions), daemon=True).start()
    while True:
        told, body = _answered(root, msgspec.json.decode(questions.get(), type=Question))
        head = msgspec.json.encode(told)
        out.write(len(head).to_bytes(4, "big") + head + body)
        out.flush()
        del body
        memory.give_back()


def _confine() -> None:
    os.nice(_NICE)
    os.environ.clear()
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))


def _warm_up(root: Path) -> None:
    """Have libraries start their dozens of threads now, whose stacks would count as a query's."""
    from tidegate.errors import TidegateError
    from tidegate.warehouse.answers import encode
    from tidegate.warehouse.query import query

    for log in sorted(root.glob("*/_delta_log"))[:1]:
        with suppress(TidegateError):
            result = query(root, f'SELECT * FROM "{log.parent.name}" LIMIT 1', threads=1)
            encode(result, "json", rows_max=1, bytes_max=_SLACK_BYTES)


def _listen(source: BinaryIO, questions: SimpleQueue[bytes]) -> None:
    """Hand on questions; a query that runs when there is nobody to answer is given up."""
    while len(size := source.read(4)) == 4:
        questions.put(source.read(int.from_bytes(size, "big")))
    os._exit(0)


def _answered(root: Path, question: Question) -> tuple[Told, bytes]:
    import duckdb
    import pyarrow as pa

    from tidegate.errors import QueryError
    from tidegate.warehouse.answers import ResultTooLargeError

    began = time.perf_counter()
    try:
        return _run(root, question, began=began)
    except ResultTooLargeError as error:
        return Told(code="result_too_large", message=str(error)), b""
    except MemoryError:
        return _too_much_memory(question), b""
    except QueryError as error:
        if isinstance(error.__cause__, duckdb.OutOfMemoryException):
            return _too_much_memory(question), b""
        return _bad(root, question, error), b""
    except OSError as error:
        if "memory" in str(error).lower():
            return _too_much_memory(question), b""
        return Told(code="failed", message=type(error).__name__), b""
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        return _bad(root, question, error), b""
    except Exception as error:  # noqa: BLE001 - the edge of the process: the next one must be heard
        return Told(code="failed", message=type(error).__name__), b""


def _run(root: Path, question: Question, *, began: float) -> tuple[Told, bytes]:
    from tidegate.warehouse.answers import encode
    from tidegate.warehouse.query import query

    _bound_memory(question.memory_bytes)
    result = query(
        root,
        question.sql,
        dialect=question.dialect,
        parameters=question.parameters,
        threads=question.threads,
        memory_bytes=question.memory_bytes,
        batch_rows=_BATCH_ROWS,
        guarded=True,
        hiding=question.hiding,
    )
    found = encode(
        result, question.format, rows_max=question.rows_max, bytes_max=question.bytes_max
    )
    body = found.body
    if question.format == "json":
        flag = b"true" if found.truncated else b"false"
        spent_ms = (time.perf_counter() - began) * 1e3
        body += b',"row_count":%d,"truncated":%b,"elapsed_ms":%.1f}' % (found.rows, flag, spent_ms)
    return Told(rows=found.rows, truncated=found.truncated, size=len(body)), body


def _bound_memory(memory_bytes: int) -> None:
    """What DuckDB asks for elsewhere than from its own bounded pool is bounded by the system."""
    held = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    now = int(held[1]) << 10 if held else 1 << 30
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + memory_bytes + _SLACK_BYTES, hard))


def _too_much_memory(question: Question) -> Told:
    text = (
        f"the query needs more than {question.memory_bytes >> 20} MiB of memory: filter by date, "
        "select fewer columns, or group by less"
    )
    return Told(code="out_of_memory", message=text)


def _bad(root: Path, question: Question, error: Exception) -> Told:
    """DuckDB's own words, without where things lie on this machine."""
    text = str(error).partition("\nStack Trace")[0].partition("\nPossible solutions")[0]
    text = text.replace(str(root), "the tables")
    # Paths that the sender wrote are the sender's own affair.
    text = _PATH.sub(lambda found: found[0] if found[0] in question.sql else "…", text)
    return Told(code="bad_query", message=text.strip()[:_MESSAGE_CHARACTERS_MAX])


if __name__ == "__main__":
    main()
