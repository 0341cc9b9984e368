"""The tokens of a SQL text: what is left of it when comments and layout are taken away."""

from __future__ import annotations

import re

# Quoted text is kept as it is; comments and blanks between other tokens count for nothing.
_TOKEN = re.compile(
    r"""
    (?P<quoted> [eE]'(?:\\.|''|[^'\\])*' | '(?:''|[^'])*' | "(?:""|[^"])*" | \[[^\]]*\]
              | (?P<dollar>\$\w*\$).*?(?P=dollar) )
  | (?P<blank> \s+ | --[^\n]* | /\*.*?\*/ )
  | [\w.]+ | [(),;] | (?: (?! -- | /\* ) [^\w\s.'"\[\](),;] )+ | .
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(sql: str) -> list[str]:
    """The tokens of a SQL text, without comments and blanks.

    >>> tokens("a  > 'x  y' -- why")
    ['a', '>', "'x  y'"]
    """
    return [m[0] for m in _TOKEN.finditer(sql) if m["blank"] is None]
