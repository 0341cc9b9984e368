"""The events that are measured: files of store events, made once and kept beside the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).parent / "data"

START_TIME_US = 1_704_067_200_000_000  # 2024-01-01, so that no event lies in the future
_SEED = 7
_BLOCK_BYTES = 4 << 20


def store_file(count: int) -> Path:
    """An NDJSON file of `count` store events: one in ten has no store, all can be read."""
    from tidegate.testing.store import generate_batches

    path = DATA / f"store-{count}.ndjson"
    if path.exists():
        return path
    print(f"making {path.name}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.writelines(generate_batches(count, seed=_SEED, start_time_us=START_TIME_US))
    return draft.replace(path)


def blocks(path: Path, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """The file in blocks of whole lines; at most one block is held."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(block_bytes):
            rest += chunk
            end = rest.rfind(b"\n") + 1
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def batches(path: Path, *, lines: int) -> Iterator[bytes]:
    """The file as NDJSON of `lines` lines each, the last fewer."""
    with path.open("rb") as file:
        batch: list[bytes] = []
        for line in file:
            batch.append(line)
            if len(batch) == lines:
                yield b"".join(batch)
                batch = []
        if batch:
            yield b"".join(batch)
