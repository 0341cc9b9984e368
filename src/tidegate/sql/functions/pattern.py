"""Patterns as the Rust regular expressions that Polars runs, in time linear in the text.

DuckDB's regular expressions are RE2's. The two agree but for the classes: RE2's `\\d`, `\\w`, `\\s`
and `\\b` know ASCII only, Rust's all of Unicode, and a bracket inside a class is plain in RE2.
"""

from __future__ import annotations

import re

_CLASSES = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": "\\t\\n\\f\\r ",
}
_FLAGS = re.compile(r"\(\?([a-zA-Z-]*)[:)]")


def like_regex(pattern: str, escape: str) -> str:
    """The regular expression of a LIKE pattern. Raises: ValueError if it cannot be read."""
    if len(escape) > 1:
        raise ValueError("the escape of LIKE is one character")
    parts: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if escape and char == escape:
            escaped = next(chars, None)
            if escaped is None:
                raise ValueError("the pattern ends with its escape character")
            parts.append(_literal(escaped))
        else:
            parts.append({"%": ".*", "_": "."}.get(char) or _literal(char))
    return "(?s)\\A" + "".join(parts) + "\\z"


def _literal(char: str) -> str:
    return char if char.isalnum() or char in " _" else f"\\x{{{ord(char):x}}}"


def regex(pattern: str, options: str) -> str:
    """The regular expression in Rust's terms. Raises: ValueError for what differs beyond that."""
    if not set(options) <= set("cis"):
        raise ValueError(f"`{options}`: of the options only `c`, `i` and `s` are supported")
    for flags in _FLAGS.findall(pattern):
        if not set(flags) <= set("ismU-"):
            raise ValueError(f"the flags `{flags}` are not supported in a regular expression")
    found = "".join(f for f in options if f in "is")
    translated = _Reader(pattern).read()
    return f"(?{found})(?:{translated})" if found else translated


class _Reader:
    """Reads a pattern once from left to right; `read` gives it back in Rust's terms."""

    def __init__(self, pattern: str) -> None:
        self.rest = iter(pattern)
        self.out: list[str] = []

    def read(self) -> str:
        for char in self.rest:
            if char == "\\":
                self.out.append(_outside(self._next()))
            elif char == "[":
                self._read_class()
            else:
                self.out.append(char)
        return "".join(self.out)

    def _next(self) -> str:
        found = next(self.rest, None)
        if found is None:
            raise ValueError("the regular expression ends in the middle")
        return found

    def _read_class(self) -> None:
        self.out.append("[")
        char = self._next()
        if char == "^":
            self.out.append("^")
            char = self._next()
        if char == "]":
            # First in the class, it stands for itself.
            self.out.append("\\]")
            char = self._next()
        while char != "]":
            self._read_member(char)
            char = self._next()
        self.out.append("]")

    def _read_member(self, char: str) -> None:
        if char == "\\":
            self.out.append(_inside(self._next()))
        elif char == "[":
            self._read_bracket()
        else:
            self.out.append("\\" + char if char in "&~" else char)

    def _read_bracket(self) -> None:
        char = self._next()
        if char != ":":
            raise ValueError("write `\\[` for a bracket inside a class")
        name = ""
        while not name.endswith(":]"):
            name += self._next()
        self.out.append(f"[:{name}")


def _outside(char: str) -> str:
    if char in _CLASSES:
        return f"[{_CLASSES[char]}]"
    if char.lower() in _CLASSES:
        return f"[^{_CLASSES[char.lower()]}]"
    if char == "b":
        return "(?-u:\\b)"
    return _other(char)


def _inside(char: str) -> str:
    if char in _CLASSES:
        return _CLASSES[char]
    if char.lower() in _CLASSES:
        return f"[^{_CLASSES[char.lower()]}]"
    return _other(char)


def _other(char: str) -> str:
    if char in "BCQE" or char in "<>uU":
        raise ValueError(f"`\\{char}` is not supported in a regular expression")
    return f"\\{char}"
