"""Shares of a whole, as a setting writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from tidegate.project.values import Refused, Where, shown

_WRITTEN = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", re.ASCII)
_HINT = 'write it with its sign, as in "25 %" or "0.5 %"'


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole in percent, as in "25 %"; comes out as an exact fraction."""

    name: str = "share"
    bounds: str = "from 0 % to 100 %"

    def parse(self, value: object, where: Where) -> Fraction:  # noqa: ARG002 - one signature for all kinds
        """The share, from 0 to 1."""
        match = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise Refused(f"must be a share, not {shown(value)}", hint=_HINT)
        share = Fraction(match[1]) / 100
        if share > 1:
            raise Refused(f"must be {self.bounds}, not `{value}`")
        return share
