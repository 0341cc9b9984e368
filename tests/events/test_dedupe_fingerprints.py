"""Fingerprints against the paper's vectors and a plain twin; the table of the newest ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.events.fingerprints import buffers, hash_strings, read_key, zeros

# From the reference implementation: key 00..0f, message i is the bytes 00, 01, … (i of them).
REFERENCE = {
    0: 0x726FDB47DD0E0E31,
    1: 0x74F839C593DC67FD,
    2: 0x0D6C8009D9A94F5A,
    3: 0x85676696D7FB7E2D,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,  # the one that the paper works through
    16: 0x3F2ACC7F57C29BDB,
    63: 0x958A324CEB064572,
}


def rotate(word: int, by: int) -> int:
    return ((word << by) | (word >> (64 - by))) & ((1 << 64) - 1)


def sip_round(v: list[int]) -> None:
    low = (1 << 64) - 1
    v[0] = (v[0] + v[1]) & low
    v[1] = rotate(v[1], 13) ^ v[0]
    v[0] = rotate(v[0], 32)
    v[2] = (v[2] + v[3]) & low
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = (v[0] + v[3]) & low
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = (v[2] + v[1]) & low
    v[1] = rotate(v[1], 17) ^ v[2]
    v[2] = rotate(v[2], 32)


def siphash_twin(key: bytes, message: bytes) -> int:
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    start = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [c ^ k for c, k in zip(start, (k0, k1, k0, k1), strict=True)]
    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def hashes(strings: pa.StringArray, key: bytes) -> list[int]:
    return [int(h) for h in hash_strings(*buffers(strings), key=read_key(key))]


@pytest.mark.parametrize("size", REFERENCE)
def test_fingerprints_are_those_of_the_reference(size: int) -> None:
    message = "".join(map(chr, range(size)))
    assert hashes(pa.array([message]), bytes(range(16))) == [REFERENCE[size]]


@given(st.lists(st.text(max_size=40)), st.binary(min_size=16, max_size=16), st.data())
def test_fingerprints_equal_a_plain_twin_on_any_slice(
    strings: list[str], key: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(strings)))
    column = pa.array(strings, pa.string())[start:]
    assert hashes(column, key) == [siphash_twin(key, s.encode()) for s in strings[start:]]


def test_strings_longer_than_the_length_byte_are_hashed_whole() -> None:
    strings = ["x" * n for n in (255, 256, 257, 5000)]
    key = bytes(16)
    assert hashes(pa.array(strings), key) == [siphash_twin(key, s.encode()) for s in strings]


def test_another_key_gives_other_fingerprints() -> None:
    column = pa.array(["a", "b"])
    assert set(hashes(column, bytes(16))).isdisjoint(hashes(column, bytes(range(16))))


def test_buffers_made_by_python_are_read_too() -> None:
    bounds = np.array([0, 1, 3], dtype=np.int32)
    strings = pa.StringArray.from_buffers(
        2, pa.py_buffer(bytearray(bounds.tobytes())), pa.py_buffer(bytearray(b"abc"))
    )
    assert hashes(strings, bytes(16)) == hashes(pa.array(["a", "bc"]), bytes(16))


@pytest.mark.parametrize("shape", [(3, 2), (1 << 20, 2)], ids=["small", "large"])
def test_zeros_are_zero_writable_and_of_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    made = zeros(*shape)
    made[-1, -1] = 7
    assert made.shape == shape
    assert int(made.sum()) == 7
