"""Immutable files of fingerprints, and the filters that spare reading them.

A *run* is a file of `(fingerprint, offset)` pairs sorted by fingerprint, written once. A *shelf*
holds what stays in memory of up to 8 runs: a split-block Bloom filter and the first fingerprint
of each page, so that a look-up reads a run only for an id that is most likely in it, and then one
page.

File: a page of header, the pairs (uint64, int64), the changes of the ingest time (offset, time;
int64), the filter (uint64); all little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from tidegate.errors import DamageError, StorageFullError
from tidegate.events.fingerprints import (
    INTEGERS,
    PAIRS,
    WORDS,
    Integers,
    Words,
    inline,
    kernel,
    zeros,
)

Filter = npt.NDArray[np.uint64]

SHELF_RUNS = 8

_PAGE = 4096
_PAGE_PAIRS = 256
_BLOCK_WORDS = 4
_ALL_LACK = (1 << SHELF_RUNS) - 1
_IDS_PER_BLOCK = 16  # 256 bits for 16 ids: 16 bits each, about 1 false positive in 1,000
_CHUNK = 1 << 20
_MAGIC = b"tidedupe"
_VERSION = 1
_HEADER = struct.Struct("<8sIIqqqqqqqI")

_SALTS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93],
    dtype=np.uint64,
)
_1, _32, _52, _58, _63 = (np.uint64(n) for n in (1, 32, 52, 58, 63))

# pread(2) itself, so that a batch is looked up without touching the GIL. Reading, rather than
# mapping, keeps the pages of runs out of this process's memory.
_pread: Any = types.ExternalFunction(
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)


class RunName(NamedTuple):
    """A run as a snapshot refers to it: the file's name and the checksum of what it holds."""

    name: str
    checksum: int


@dataclass(frozen=True, slots=True)
class Run:
    """An open run file: `count` ids with `first_offset <= offset <= last_offset`."""

    name: RunName
    file: int
    count: int
    changes: int
    first_offset: int
    last_offset: int

    def read_changes(self, start: int, count: int) -> Integers:
        """`count` changes of the ingest time from the `start`-th on, shape (count, 2)."""
        data = os.pread(self.file, 16 * count, _PAGE + 16 * (self.count + start))
        if len(data) != 16 * count:
            raise _damaged(self.name.name, "it was cut short", self.first_offset)
        return np.frombuffer(data, dtype="<i8").reshape(-1, 2).astype(np.int64)


@inline
def _block(fingerprint: np.uint64, blocks: int) -> np.uint64:
    at: Any = ((fingerprint >> _32) * np.uint64(blocks)) >> _32
    return np.uint64(at)


@inline
def _bits(fingerprint: np.uint64, word: int) -> Any:
    spread: Any = fingerprint * _SALTS[word]
    return (_1 << (spread >> _58)) | (_1 << ((spread >> _52) & _63))


@inline
def _lacking(filters: Filter, at: np.uint64, word: int, fingerprint: np.uint64) -> Any:
    """The runs of a shelf, one bit each, that cannot hold the fingerprint by this word."""
    wanted = _bits(fingerprint, word)
    lacking: Any = 0
    for place in range(SHELF_RUNS):
        lacking |= np.int64((filters[at, word, place] & wanted) != wanted) << place
    return lacking


@kernel(types.void(types.uint64[:, ::1], types.uint64[:, ::1]))
def _build_filter(words: Filter, pairs: Words) -> None:
    for i in range(len(pairs)):
        at = _block(pairs[i, 0], len(words))
        for word in range(_BLOCK_WORDS):
            words[at, word] |= _bits(pairs[i, 0], word)


@inline
def _first_page(fences: Words, pages: int, fingerprint: np.uint64) -> int:
    # The last page that begins below the fingerprint: equal ones may begin at its end.
    low, high = 0, pages
    while low < high:
        middle = (low + high) // 2
        if fences[middle] < fingerprint:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


@inline
def _collect(
    page: Words, held: int, fingerprint: np.uint64, row: int, hits: Integers, total: int
) -> int:
    for k in range(held):
        if page[2 * k] == fingerprint:
            if total < len(hits):
                hits[total, 0] = row
                hits[total, 1] = np.int64(page[2 * k + 1])
            total += 1
    return total


@inline
def _search(
    file: int,
    fences: Words,
    count: int,
    fingerprint: np.uint64,
    row: int,
    page: Words,
    hits: Integers,
    total: int,
) -> int:
    pages = (count + _PAGE_PAIRS - 1) // _PAGE_PAIRS
    number = _first_page(fences, pages, fingerprint)
    while number < pages and fences[number] <= fingerprint:
        held = min(_PAGE_PAIRS, count - number * _PAGE_PAIRS)
        size = _pread(np.int32(file), page.ctypes.data, 16 * held, np.int64(_PAGE * (number + 1)))
        if size != 16 * held:
            return -1
        total = _collect(page, held, fingerprint, row, hits, total)
        number += 1
    return total


@inline
def _sift(filters: Filter, fingerprints: Words, start: int, left: Integers) -> int:
    """How many rows remain, with the runs that lack them, after half of the filter's words."""
    total = 0
    for i in range(start, len(fingerprints)):
        at = _block(fingerprints[i], len(filters))
        lacking = _lacking(filters, at, 0, fingerprints[i])
        lacking |= _lacking(filters, at, 1, fingerprints[i])
        # Without a branch: one foretold wrongly would keep the next words from being fetched.
        left[total, 0], left[total, 1] = i, lacking
        total += lacking != _ALL_LACK
    return total


@kernel(
    types.int64(
        *(types.uint64[:, :, ::1], types.uint64[:, ::1], INTEGERS, INTEGERS),
        *(WORDS, types.int64, WORDS, PAIRS),
    )
)
def _probe(
    filters: Filter,
    fences: Words,
    counts: Integers,
    files: Integers,
    fingerprints: Words,
    start: int,
    page: Words,
    hits: Integers,
) -> int:
    """How many `(row, offset)` hits there are; as many as fit are stored. Below 0: unreadable."""
    total = 0
    left = np.empty((len(fingerprints), 2), dtype=np.int64)
    for k in range(_sift(filters, fingerprints, start, left)):
        i, lacking = left[k, 0], left[k, 1]
        wanted = fingerprints[i]
        at = _block(wanted, len(filters))
        lacking |= _lacking(filters, at, 2, wanted) | _lacking(filters, at, 3, wanted)
        for s in range(SHELF_RUNS):
            if not (lacking >> s) & 1 and counts[s] > 0:
                total = _search(files[s], fences[s], counts[s], wanted, i, page, hits, total)
                if total < 0:
                    return -1 - s
    return total


class Shelf:
    """What stays in memory of up to 8 runs of at most `run_ids` ids each: 2.03 bytes an id.

    The filters' words lie side by side, so that one line of the processor's cache tells of all
    eight runs. A place is used again when its run is gone.
    """

    def __init__(self, *, run_ids: int) -> None:
        blocks = -(-run_ids // _IDS_PER_BLOCK)
        pages = -(-run_ids // _PAGE_PAIRS)
        self._filters = zeros(blocks, _BLOCK_WORDS, SHELF_RUNS)
        self._fences = zeros(SHELF_RUNS, pages)
        self._counts = np.zeros(SHELF_RUNS, dtype=np.int64)
        self._files = np.full(SHELF_RUNS, -1, dtype=np.int64)
        self._runs: list[Run | None] = [None] * SHELF_RUNS
        self._page = np.empty(2 * _PAGE_PAIRS, dtype=np.uint64)
        self._hits = np.empty((64, 2), dtype=np.int64)

    @property
    def free(self) -> int | None:
        """A place for one more run, None when the shelf is full."""
        return self._runs.index(None) if None in self._runs else None

    @property
    def bytes_held(self) -> int:
        """Memory of the filters and of the first fingerprints of pages."""
        return int(self._filters.nbytes + self._fences.nbytes)

    @property
    def filter_shape(self) -> tuple[int, int]:
        """The shape of the filter of one run, of uint64."""
        return self._filters.shape[0], _BLOCK_WORDS

    def prepare(self, place: int, pairs: Words) -> Filter:
        """The filter of sorted pairs, set at `place`; it counts once `put` is called."""
        words = np.zeros(self.filter_shape, dtype=np.uint64)
        _build_filter(words, pairs)
        self.load(place, words=words)
        self.mark(place, page=0, fences=pairs[::_PAGE_PAIRS, 0])
        return words

    def load(self, place: int, *, words: Filter) -> None:
        """Set the filter at `place`."""
        self._filters[:, :, place] = words

    def mark(self, place: int, *, page: int, fences: Words) -> None:
        """Set the first fingerprints of the pages from `page` on."""
        self._fences[place, page : page + len(fences)] = fences

    def put(self, place: int, run: Run) -> None:
        """Let the run at `place`, whose filter is there already, take part in look-ups."""
        self._runs[place] = run
        self._files[place] = run.file
        self._counts[place] = run.count

    def drop(self, run: Run) -> None:
        """Forget the run, if it is here, and close its file; the file itself stays."""
        if run in self._runs:
            place = self._runs.index(run)
            self._counts[place], self._files[place], self._runs[place] = 0, -1, None
            os.close(run.file)

    def probe(self, fingerprints: Words, start: int) -> Integers:
        """`(row, offset)` of each pair with the fingerprint of a row from `start` on, (m, 2).

        Raises: DamageError if a run cannot be read.
        """
        if len(self._hits) < len(fingerprints):
            self._hits = np.empty((len(fingerprints), 2), dtype=np.int64)
        arrays = (self._filters, self._fences, self._counts, self._files, fingerprints)
        total: int = _probe(*arrays, start, self._page, self._hits)
        if total > len(self._hits):
            self._hits = np.empty((total, 2), dtype=np.int64)
            total = _probe(*arrays, start, self._page, self._hits)
        if total < 0:
            run = self._runs[-1 - total]
            assert run is not None  # noqa: S101 - only runs that are here are read
            raise _damaged(run.name.name, "it cannot be read", run.first_offset)
        return self._hits[:total]


def write_run(folder: Path, *, pairs: Words, changes: Integers, words: Filter) -> Run:
    """A new run file, named by its first and last offset; not durable before `sync_runs`.

    A file of that name is replaced: it is what an earlier life of this log wrote.
    Raises: StorageFullError; then no file is left.
    """
    offsets = pairs[:, 1]
    first, last = int(offsets.min()), int(offsets.max())
    body = [_octets(part) for part in (pairs, changes, words)]
    checksum = 0
    for part in body:
        checksum = zlib.crc32(part, checksum)
    times = (int(changes[0, 1]), int(changes[-1, 1]))
    sizes = (len(pairs), len(changes), words.size)
    header = _HEADER.pack(_MAGIC, _VERSION, 0, *sizes, first, last, *times, checksum)
    page = header.ljust(_PAGE, b"\0")
    path = folder / f"{first:020d}-{last:020d}.run"
    try:
        _replace(path, [page, *body])
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        path.with_suffix(".tmp").unlink(missing_ok=True)
        raise StorageFullError(f"cannot write {path.name}: {error}") from error
    return Run(RunName(path.name, zlib.crc32(page)), file, sizes[0], sizes[1], first, last)


def sync_runs(folder: Path, names: Sequence[str]) -> None:
    """Wait until run files of these names are durable. Raises: StorageFullError.

    Callable by any thread: whoever has a run open may close it meanwhile.
    """
    try:
        for path in (*(folder / name for name in names), folder):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
    except OSError as error:
        raise StorageFullError(f"cannot make dedupe files durable: {error}") from error


def _replace(path: Path, parts: Iterable[Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb", buffering=0) as out:
        for part in parts:
            view = memoryview(part)
            while view.nbytes:
                view = view[out.write(view) :]
    temporary.replace(path)


def open_run(folder: Path, name: RunName, *, shelf: Shelf, place: int) -> Run:
    """The run of that name, checked to the last byte and put on the shelf at `place`.

    Raises: DamageError naming the file if it is missing, torn or not what was written.
    """
    try:
        file = os.open(folder / name.name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _damaged(name.name, f"it cannot be opened ({error})", None) from error
    try:
        run = _check_run(file, name, shelf, place)
    except BaseException:
        os.close(file)
        raise
    shelf.put(place, run)
    return run


def _check_run(file: int, name: RunName, shelf: Shelf, place: int) -> Run:
    page = os.pread(file, _PAGE, 0)
    if len(page) != _PAGE or zlib.crc32(page) != name.checksum:
        raise _damaged(name.name, "its header is not what was written", None)
    _, version, _, count, changes, words, first, last, *_, checksum = _HEADER.unpack_from(page)
    filter_ = np.empty(shelf.filter_shape, dtype="<u8")
    if version != _VERSION or words != filter_.size:
        raise _damaged(name.name, f"version {version} or size {words} does not fit", first)
    seen = _load_pairs(file, shelf, place, count)
    seen = _read_into(file, memoryview(bytearray(16 * changes)), _PAGE + 16 * count, seen)
    where = _PAGE + 16 * (count + changes)
    seen = _read_into(file, _octets(filter_), where, seen)
    if seen != checksum or os.fstat(file).st_size != where + filter_.nbytes:
        raise _damaged(name.name, "its checksum does not match", first)
    shelf.load(place, words=filter_)
    return Run(name, file, count, changes, first, last)


def _load_pairs(file: int, shelf: Shelf, place: int, count: int) -> int:
    checksum = 0
    for start in range(0, 16 * count, _CHUNK):
        data = os.pread(file, min(_CHUNK, 16 * count - start), _PAGE + start)
        checksum = zlib.crc32(data, checksum)
        whole = np.frombuffer(data[: len(data) // 16 * 16], dtype="<u8").reshape(-1, 2)
        shelf.mark(place, page=start // _PAGE, fences=whole[::_PAGE_PAIRS, 0].astype(np.uint64))
    return checksum


def _read_into(file: int, target: memoryview, where: int, checksum: int) -> int:
    for start in range(0, target.nbytes, _CHUNK):
        part = target[start : start + _CHUNK]
        os.preadv(file, [part], where + start)
        checksum = zlib.crc32(part, checksum)
    return checksum


def _octets(array: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).data).cast("B")


def _damaged(name: str, why: str, offset: int | None) -> DamageError:
    return DamageError(f"dedupe file {name} is damaged: {why}", offset=offset)
