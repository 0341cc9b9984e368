"""Pseudonyms: what stands for a value that not everybody may see.

A pseudonym is made by a keyed hash, so that equal values have equal pseudonyms within one
installation, and nobody without its key can tell which value one stands for, or try them all.
"""

from __future__ import annotations

import hmac
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PREFIX = "pii:"
_DIGITS = 20  # 80 bits of the hash
_PURPOSE = b"tidegate pii 1"


def pseudonym_key(installation_key: bytes) -> bytes:
    """The key of the pseudonyms, derived from that of the installation."""
    return hmac.digest(installation_key, _PURPOSE, "sha256")


def pseudonym(text: str, key: bytes) -> str:
    """What stands for a text.

    >>> pseudonym("4711", bytes(32)) == pseudonym("4711", bytes(32)) != pseudonym("4712", bytes(32))
    True
    >>> pseudonym("4711", bytes(32))[:4], len(pseudonym("4711", bytes(32)))
    ('pii:', 24)
    """
    digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")
    return PREFIX + digest.hex()[:_DIGITS]


def pseudonyms(values: pa.Array[Any], key: bytes) -> pa.Array[Any]:
    """What stands for each value: text; null stays null.

    A value counts by how Arrow writes it as text, so that a number and the same number as text have
    one pseudonym. Lists and structs keep their shape, and have pseudonyms inside.
    """
    kind: Any = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # Null lists have no values in a fresh array, so their offsets need no mask.
        fresh: Any = pa.concat_arrays([values])
        ends = pa.array(fresh.offsets.to_numpy(), pa.int32(), mask=_offset_mask(fresh))
        return pa.ListArray.from_arrays(ends, pseudonyms(fresh.values, key))
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        parts = [pseudonyms(part, key) for part in values.flatten()]  # type: ignore[attr-defined] # of structs
        return pa.StructArray.from_arrays(parts, names=names, mask=pc.is_null(values))
    encoded: Any = _texts(values).dictionary_encode()
    known = [pseudonym(text, key) for text in encoded.dictionary.to_pylist()]
    stands: pa.Array[Any] = pa.array(known, pa.string()).take(encoded.indices)
    return stands


def _texts(values: pa.Array[Any]) -> Any:
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        hexed = [None if v is None else v.hex() for v in values.to_pylist()]
        return pa.array(hexed, pa.string())
    return values.cast(pa.string())


def _offset_mask(lists: Any) -> Any:
    return np.append(lists.is_null().to_numpy(zero_copy_only=False), np.array([False]))
