"""The roll-out of a rule: it decides for a share of the entities, and reports for the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_SPACE = 2**64
_SEPARATOR = b"\x00"


@dataclass(frozen=True, slots=True)
class Rollout:
    """The share of entities, values of `column`, for which a rule decides.

    Which they are follows from the rule's name and the value alone: the same on each machine, and a
    larger share has all that a smaller one has. Null is never among them.
    """

    rule: str
    column: str
    share: Fraction

    def chosen(self, values: pa.Array[Any]) -> npt.NDArray[np.bool_]:
        """Whether each value is among the chosen."""
        encoded: Any = values.dictionary_encode()
        distinct = [self.holds(v) for v in encoded.dictionary.to_pylist()]
        verdicts = np.array([*distinct, False], dtype=np.bool_)
        places = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        found: npt.NDArray[np.bool_] = verdicts[places]
        return found

    def holds(self, value: object) -> bool:
        """Whether a value is among the chosen."""
        if value is None:
            return False
        seed = self.rule.encode() + _SEPARATOR + _bytes(value)
        place = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
        return place * self.share.denominator < self.share.numerator * _SPACE


def _bytes(value: object) -> bytes:
    """A value as bytes that are the same everywhere, however many digits its column has."""
    if isinstance(value, Decimal):
        value = format(value.normalize(), "f")
    return str(value).encode()


def split(
    rows: npt.NDArray[np.int64], reasons: Sequence[str], chosen: npt.NDArray[np.bool_]
) -> list[tuple[npt.NDArray[np.int64], list[str]]]:
    """Rows and reasons of the chosen, then those of the others; `chosen` tells of each row."""
    told = np.array(reasons, dtype=object)
    return [(rows[mask], told[mask].tolist() if len(told) else []) for mask in (chosen, ~chosen)]
