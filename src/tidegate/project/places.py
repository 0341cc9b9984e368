"""Where each key and value of a TOML text stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key and its value begin, as characters from the start of the text.

    `origins` has for each character of a text value where it is written, and then its end.
    """

    key: int
    value: int
    origins: tuple[int, ...] = ()


def places(text: str) -> dict[Path, Place]:
    """The place of each table, key and list element of a TOML text.

    A path leads from the top: names of keys, numbers (from 0) of list elements. The text must be
    one that tomllib takes, without carriage returns; else the outcome means nothing.

    >>> places('[stream] # one\\nid = "a"')[("stream", "id")]
    Place(key=15, value=20, origins=(21, 22))
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_QUOTED = {  # what a string holds and its end, by how it begins
    '"""': re.compile(r'((?:[^"\\]|\\.|"{1,2}(?!"))*"{0,2})"""', re.DOTALL),
    "'''": re.compile(r"((?:[^']|'{1,2}(?!'))*'{0,2})'''", re.DOTALL),
    '"': re.compile(r'((?:[^"\\]|\\.)*)"'),
    "'": re.compile(r"([^']*)'"),
}
_ESCAPE = re.compile(r"\\(?:[ \t]*\n[ \t\n]*|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|.)")


class _Scanner:
    """Walks the text once; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, Place] = {}
        self.lengths: dict[Path, int] = {}  # of the arrays of tables

    def document(self) -> None:
        table: Path = ()
        while self.next() != "":
            if self.next() == "[":
                table = self.header()
            else:
                self.pair(table)

    def next(self) -> str:
        """The next character that is not blank or comment; empty at the end."""
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def header(self) -> Path:
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        keys = list(self.keys())
        self.at += brackets
        path: Path = ()
        for i, (name, offset) in enumerate(keys, 1):
            path = (*path, name)
            self.note(path, offset)
            if brackets == 2 and i == len(keys):
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:  # a header below an array of tables means its last element
                path = (*path, self.lengths[path] - 1)
                self.note(path, offset)
        return path

    def note(self, path: Path, offset: int) -> None:
        self.found.setdefault(path, Place(offset, offset))

    def pair(self, table: Path) -> None:
        path, offset = table, self.at
        for name, offset in self.keys():
            path = (*path, name)
            self.note(path, offset)
        self.at += 1  # the equals sign
        self.value(path, offset)

    def keys(self) -> Iterator[tuple[str, int]]:
        while True:
            quote, begin = self.next(), self.at
            if quote in ('"', "'"):
                self.at = self.string_end(quote)
                written = self.text[begin : self.at]
                yield str(tomllib.loads(f"key = {written}")["key"]), begin
            else:
                match = _BARE.match(self.text, self.at)
                self.at = match.end() if match else self.at + 1
                yield self.text[begin : self.at], begin
            if self.next() != ".":
                return
            self.at += 1

    def string_end(self, quote: str) -> int:
        match = _QUOTED[quote].match(self.text, self.at + len(quote))
        return match.end() if match else len(self.text)

    def value(self, path: Path, key: int) -> None:
        first, begin = self.next(), self.at
        origins: tuple[int, ...] = ()
        if first in ('"', "'"):
            origins = self.string()
        elif first == "[":
            self.list(path)
        elif first == "{":
            self.table(path)
        else:
            match = _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else len(self.text)
        self.found[path] = Place(key, begin, origins)

    def list(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self.next() not in ("]", ""):
            self.value((*path, index), self.at)
            index += 1
            self.at += self.next() == ","
        self.at += 1

    def table(self, path: Path) -> None:
        self.at += 1
        while self.next() not in ("}", ""):
            self.pair(path)
            self.at += self.next() == ","
        self.at += 1

    def string(self) -> tuple[int, ...]:
        quote = self.text[self.at] * (
            3 if self.text.startswith(self.text[self.at] * 3, self.at) else 1
        )
        begin = self.at + len(quote)
        self.at = self.string_end(quote)
        end = self.at - len(quote)
        begin += len(quote) == 3 and self.text.startswith("\n", begin)
        if quote[0] == "'":
            return tuple(range(begin, end + 1))
        return tuple(_characters(self.text, begin, end))


def _characters(text: str, begin: int, end: int) -> Iterator[int]:
    """Where each character that a basic string stands for is written, and then its end."""
    at = begin
    while at < end:
        escape = _ESCAPE.match(text, at)
        if escape is None:
            yield at
            at += 1
            continue
        if "\n" not in escape[0]:  # a backslash at the end of a line stands for nothing
            yield at
        at = escape.end()
    yield end
