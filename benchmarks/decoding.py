"""The yardstick: msgspec alone decodes a file into typed structs, on one thread.

python -m benchmarks.decoding FILE lines|records
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.corpus import blocks
from benchmarks.process import Use


class Event(msgspec.Struct):
    """A store event as `examples/store/tidegate.toml` declares it."""

    id: str
    event_type: str
    ts: datetime
    store_id: int | None = None
    store_fqdn: str | None = None
    store_ip: str | None = None
    cust_id: int | None = None
    category: str | None = None
    sku: int | None = None
    price: float | None = None
    qty: int | None = None
    discount: float | None = None
    gift_wrap: bool | None = None
    variant: str | None = None
    priority_shipping: bool | None = None
    payment_method: str | None = None
    contact_me: str | None = None
    is_return: bool | None = None
    bad_msg: bool | None = None


_DECODER = msgspec.json.Decoder(Event)


def decode_lines(block: bytes) -> int:
    """Decode a block in one call; all its structs are held until it is done."""
    return len(_DECODER.decode_lines(block))


def decode_records(block: bytes) -> int:
    """Decode a block line by line; each struct is dropped before the next is made."""
    decode, count = _DECODER.decode, 0
    for line in block.splitlines():
        decode(line)
        count += 1
    return count


WAYS: dict[str, Callable[[bytes], int]] = {"lines": decode_lines, "records": decode_records}


def main(file: str, way: str) -> None:
    decode = WAYS[way]
    started = time.perf_counter()
    count = sum(map(decode, blocks(Path(file))))
    seconds = time.perf_counter() - started
    used = Use.now()
    print(json.dumps({"events": count, "seconds": seconds, "peak_mb": used.peak_mb}))


if __name__ == "__main__":
    main(*sys.argv[1:])
