"""A generator of store events: sales and inventory of web stores, the same for the same seed.

Times ascend from `start_time_us` at a steady rate. Part of the events is faulty, as in real life:
events of faulty stores have no `store_id` and are marked `bad_msg` (they can be read), unreadable
ones are broken in one of the ways of `UNREADABLE`, and duplicates repeat an earlier record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, product
from typing import Any, TypedDict, Unpack

import msgspec
import numpy as np
import numpy.typing as npt

# A store's event as its makers printed it. `is_return` is blank, so it is not JSON.
SAMPLE = b"""{
  "id": "2a3fda24-1c6b-4b93-8a8a-cc97097ec08a",
  "event_type": "sale_event",
  "store_id": 7,
  "store_fqdn": "localhost",
  "store_ip": "127.0.0.1",
  "cust_id": 225,
  "category": "Groceries",
  "sku": 44848,
  "price": 68.84,
  "qty": 63,
  "discount": 60,
  "gift_wrap": true,
  "variant": "red",
  "priority_shipping": false,
  "payment_method": "cod",
  "ts": "2023-06-06T20:24:45.754948",
  "contact_me": "github.com/miztiik",
  "is_return": \n}"""

TYPES = ("sale_event", "inventory_event")
CATEGORIES = (
    "Books", "Games", "Mobiles", "Groceries", "Shoes", "Stationaries", "Laptops", "Tablets",
    "Notebooks", "Camera", "Printers", "Monitors", "Speakers", "Projectors", "Cables", "Furniture",
)  # fmt: skip
PAYMENT_METHODS = (
    "credit_card", "debit_card", "cash", "wallet", "upi", "net_banking", "cod", "gift_card",
)  # fmt: skip
STORES = 10
VARIANTS = ("black", "red")

_CHUNK = 8192  # events drawn at once; part of what a seed means
_REACH = 1000  # how many events back a duplicate may lie

# How a readable record becomes one that cannot be read. What is not UTF-8 is written as a surrogate
# here and becomes a lone byte 0xFF when the text is encoded.
UNREADABLE: dict[str, Callable[[str], str]] = {
    "blank value": lambda r: r.replace('"is_return": true', '"is_return": ').replace(
        '"is_return": false', '"is_return": '
    ),
    "truncated": lambda r: r[: len(r) * 2 // 3],
    "wrong type": lambda r: r.replace('"qty": ', '"qty": "many", "was": '),
    "bad time": lambda r: r.replace('"ts": "', '"ts": "at '),
    "no time": lambda r: r.replace('"ts": ', '"time": '),
    "no id": lambda r: r.replace('"id": ', '"uuid": '),
    "not UTF-8": lambda r: r.replace('"variant": "', '"variant": "\udcff'),
    "not an object": lambda r: r[7:45],
    "plain text": lambda r: f"ERROR store offline {r[8:44]}",
}

_Ints = npt.NDArray[np.int64]


class Asked(TypedDict, total=False):
    """How the events shall be; shares are probabilities, 0 to 1.

    With `shuffle_seconds` event times lie up to that much above the steady rate's, so that no event
    comes later than that after one of a higher time.
    """

    rate_per_second: float
    unreadable_share: float
    missing_store_share: float
    duplicate_share: float
    shuffle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    start_time_us: int
    rate_per_second: float = 100.0
    unreadable_share: float = 0.0
    missing_store_share: float = 0.10
    duplicate_share: float = 0.0
    shuffle_seconds: float = 0.0


def generate(
    count: int, *, seed: int, start_time_us: int, **asked: Unpack[Asked]
) -> Iterator[bytes]:
    """`count` records of JSON on one line each, without the line's end.

    As in `Asked`; else 100 events a second, 10 % of them without a store, no other faults. Fewer
    records of a seed are the beginning of more.

    >>> [record] = generate(1, seed=7, start_time_us=0)
    >>> record[:33]
    b'{"id": "2bc8c5e9-d213-4d26-aa97-3'
    """
    plan = _Plan(start_time_us=start_time_us, **asked)
    return (line.encode("utf-8", "surrogateescape") for line in _lines(count, seed, plan))


def generate_batches(
    count: int,
    *,
    seed: int,
    start_time_us: int,
    batch_records: int = 1000,
    **asked: Unpack[Asked],
) -> Iterator[bytes]:
    """The records of `generate` as blocks of NDJSON, `batch_records` lines each, the last fewer."""
    lines = _lines(count, seed, _Plan(start_time_us=start_time_us, **asked))
    while batch := list(islice(lines, batch_records)):
        yield ("\n".join(batch) + "\n").encode("utf-8", "surrogateescape")


def produce_summary(events: Iterable[bytes]) -> dict[str, Any]:
    """Counts of produced records: all, bad (marked or unreadable), by type, and their worth.

    `tot_sales` is the sum of price times quantity over all that can be read, to the cent.
    """
    worth, bad, kinds, total = 0.0, 0, dict.fromkeys(TYPES, 0), 0
    for event in map(_read, events):
        total += 1
        bad += event is None or bool(event.get("bad_msg"))
        if event is not None:
            worth += event["price"] * event["qty"]
            kinds[event["event_type"]] += 1
    return {
        "tot_msgs": total,
        "bad_msgs": bad,
        "sale_evnts": kinds["sale_event"],
        "inventory_evnts": kinds["inventory_event"],
        "tot_sales": round(worth, 2),
    }


def _read(record: bytes) -> dict[str, Any] | None:
    """The event if it is one of the generator's; None for those that are broken."""
    try:
        event = msgspec.json.decode(record)
        whole = {"id", "ts", "event_type"} <= event.keys() and isinstance(event["qty"], int)
        datetime.fromisoformat(event["ts"])
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, ValueError):
        return None
    return event if whole else None


def _lines(count: int, seed: int, plan: _Plan) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    earlier: list[str] = []  # what duplicates at the beginning of a chunk may repeat
    for first in range(0, count, _CHUNK):
        draws = _draw(rng, first, plan)
        lines = _render(draws)
        originals = _repeat(lines, draws, earlier)
        _break(lines, draws)
        earlier = originals[-_REACH:]
        yield from lines[: count - first]


@dataclass(frozen=True, slots=True)
class _Draws:
    """A chunk of events as numbers; arrays of shape (_CHUNK,), indices into the tables below."""

    ids: bytes
    head: _Ints  # type and store
    customer: _Ints
    category: _Ints
    sku: _Ints
    cents: _Ints
    quantity: _Ints
    flags: _Ints
    tail: _Ints
    time_us: _Ints
    back: _Ints  # how far back the record lies that this one repeats; 0 if it is its own
    fault: _Ints  # which way it is broken; -1 if it is not


def _draw(rng: np.random.Generator, first: int, plan: _Plan) -> _Draws:
    n = _CHUNK
    kind = rng.random(n) >= 0.8  # an inventory event
    is_store_missing = rng.random(n) < plan.missing_store_share
    store = np.where(is_store_missing, 0, rng.integers(1, STORES + 1, n))
    is_return = kind & (rng.random(n) < 0.5)
    flags = np.ravel_multi_index(
        (rng.random(n) < 0.3, rng.integers(0, 2, n), rng.random(n) < 0.3, rng.integers(0, 8, n)),
        (2, 2, 2, 8),
    )
    return _Draws(
        ids=_ids(rng, n),
        head=kind * (STORES + 1) + store,
        customer=rng.integers(100, 1000, n),
        category=rng.integers(0, len(CATEGORIES), n),
        sku=rng.integers(18_981, 189_282, n),
        cents=np.rint(rng.random(n) * 10_000).astype(np.int64),
        quantity=rng.integers(1, 100, n) * 76 + rng.integers(0, 76, n),
        flags=flags,
        tail=is_return * 2 + is_store_missing,
        time_us=_times(rng, first, plan),
        back=np.where(rng.random(n) < plan.duplicate_share, rng.integers(1, _REACH + 1, n), 0),
        fault=np.where(
            rng.random(n) < plan.unreadable_share, rng.integers(0, len(UNREADABLE), n), -1
        ),
    )


def _times(rng: np.random.Generator, first: int, plan: _Plan) -> _Ints:
    steady = (np.arange(first, first + _CHUNK) * (1e6 / plan.rate_per_second)).astype(np.int64)
    late = rng.random(_CHUNK) * plan.shuffle_seconds * 1e6
    return plan.start_time_us + steady + late.astype(np.int64)


def _ids(rng: np.random.Generator, n: int) -> bytes:
    """`n` version 4 UUIDs of 36 characters, one after the other."""
    raw = np.frombuffer(rng.bytes(16 * n), np.uint8).reshape(n, 16).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(n, 32)
    return np.insert(digits, (8, 12, 16, 20), ord("-"), axis=1).tobytes()


def _texts(texts: Iterable[str]) -> npt.NDArray[np.object_]:
    return np.array(list(texts), dtype=object)


# The parts of a record for each index that is drawn: looked up, they cost nothing to write.
_BOOLEANS = ("false", "true")
_HEADS = _texts(
    f'"event_type": "{kind}", ' + (f'"store_id": {store}, ' if store else "")
    for kind, store in product(TYPES, range(STORES + 1))
)
_CENTS = _texts(f"{cents / 100}" for cents in range(10_001))
_QUANTITIES = _texts(f'"qty": {i // 76}, "discount": {i % 76}' for i in range(76 * 100))
_FLAGS = _texts(
    f'"gift_wrap": {gift}, "variant": "{variant}", "priority_shipping": {haste}, '
    f'"payment_method": "{payment}"'
    for gift, variant, haste, payment in product(_BOOLEANS, VARIANTS, _BOOLEANS, PAYMENT_METHODS)
)
_TAILS = _texts(
    f'"is_return": {is_return}{marked}}}'
    for is_return, marked in product(_BOOLEANS, ("", ', "bad_msg": true'))
)
_CATEGORIES = _texts(CATEGORIES)


def _render(draws: _Draws) -> list[str]:
    ids = draws.ids.decode()
    times = np.datetime_as_string(draws.time_us.view("datetime64[us]")).tolist()
    parts = zip(
        (ids[i : i + 36] for i in range(0, len(ids), 36)),
        _HEADS[draws.head].tolist(),
        draws.customer.tolist(),
        _CATEGORIES[draws.category].tolist(),
        draws.sku.tolist(),
        _CENTS[draws.cents].tolist(),
        _QUANTITIES[draws.quantity].tolist(),
        _FLAGS[draws.flags].tolist(),
        times,
        _TAILS[draws.tail].tolist(),
        strict=True,
    )
    return [
        f'{{"id": "{uuid}", {head}"store_fqdn": "localhost", "store_ip": "127.0.0.1", '
        f'"cust_id": {customer}, "category": "{category}", "sku": {sku}, "price": {price}, '
        f'{quantity}, {flags}, "ts": "{time}", "contact_me": "github.com/miztiik", {tail}'
        for uuid, head, customer, category, sku, price, quantity, flags, time, tail in parts
    ]


def _repeat(lines: list[str], draws: _Draws, earlier: Sequence[str]) -> list[str]:
    """Let duplicates repeat a whole record before them; gives those that may be repeated."""
    originals = list(earlier)
    back, fault = draws.back.tolist(), draws.fault.tolist()
    if not any(back):
        return [line for line, broken in zip(lines, fault, strict=True) if broken < 0]
    for i, reach in enumerate(back):
        if fault[i] >= 0:
            continue
        if reach and originals:
            lines[i] = originals[-1 - (reach - 1) % min(len(originals), _REACH)]
        else:
            originals.append(lines[i])
    return originals


def _break(lines: list[str], draws: _Draws) -> None:
    """Make records unreadable, each in the way that was drawn."""
    ways = list(UNREADABLE.values())
    for i in np.flatnonzero(draws.fault >= 0).tolist():
        lines[i] = ways[draws.fault[i]](lines[i])
