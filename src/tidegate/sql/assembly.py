"""Trees written down as steps for the machine of `registers`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tidegate.sql import steps
from tidegate.sql.tree import COLUMN, LITERAL, Node, Span
from tidegate.sql.types import TEXTUAL, Name

Words: TypeAlias = npt.NDArray[np.int64]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Emit: TypeAlias = "Callable[[Assembly, Node], int]"

_COLUMN_FORMS = {
    Name.DECIMAL: steps.DECIMAL,
    Name.BOOLEAN: steps.BOOLEAN,
    **dict.fromkeys(TEXTUAL, steps.TEXT),
}


class Assembly:
    """The steps for some trees, each value computed once however often it is used.

    `emit` writes the steps of a node and gives the register of its value. `results` are the
    registers of the trees, `registers` how many there are.
    """

    def __init__(self, trees: Sequence[Node], emit: Emit) -> None:
        self._steps: list[list[int]] = []
        self._places: dict[Node, int] = {}
        self._constants: dict[tuple[int, int], int] = {}
        self._columns: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._lists: list[int] = []
        self.texts: list[Bytes] = []
        for node in dict.fromkeys(n for tree in trees for n in below(tree)):
            if node.op is not LITERAL and not (node.op is COLUMN and node.type.name in TEXTUAL):
                self._places[node] = emit(self, node)
        results = [self.place(tree) for tree in trees]
        self.registers, self.results = _allocated(self._steps, results)
        self.code: Words = np.array(self._steps, dtype=np.int64).ravel()

    @property
    def columns(self) -> list[tuple[str, int]]:
        """The columns that are read, with their forms, in the order of their numbers."""
        return list(self._columns.items())

    @property
    def constants(self) -> tuple[Words, Bytes]:
        """The words of the constants, and which of them are known."""
        pairs = list(self._constants) or [(0, 0)]
        words = np.array([word for word, _ in pairs], dtype=np.int64)
        return words, np.array([known for _, known in pairs], dtype=np.uint8)

    @property
    def lists(self) -> Words:
        """What IN and texts look up; it points into `texts`, which must live as long."""
        return np.array(self._lists or [0], dtype=np.int64)

    def place(self, node: Node) -> int:
        """The register of a value: below 0 for a constant."""
        if node.op is not LITERAL:
            return self._places[node]
        pair = (0, 0) if node.value is None else (word_of(node), 1)
        return -1 - self._constants.setdefault(pair, len(self._constants))

    def step(self, code: int, *read: int) -> int:
        """Add a step; the register that it writes."""
        room = [0] * (steps.WIDTH - 2 - len(read))
        self._steps.append([code, len(self._steps), *read, *room])
        return len(self._steps) - 1

    def column(self, node: Node) -> int:
        """The number of a column among those that are read."""
        name = str(node.value)
        if name not in self._numbers:
            self._numbers[name] = len(self._columns)
            self._columns[name] = _COLUMN_FORMS.get(node.type.name, steps.PLAIN)
        return self._numbers[name]

    def text(self, node: Node) -> int:
        """The place of a literal's text among the lists: its address, then its size in bytes."""
        data = str(node.value).encode()
        self.texts.append(np.frombuffer(data or b"\0", dtype=np.uint8))
        self._lists += (self.texts[-1].ctypes.data, len(data))
        return len(self._lists) - 2

    def words(self, nodes: Sequence[Node]) -> int:
        """The place of the literals' words among the lists."""
        self._lists += map(word_of, nodes)
        return len(self._lists) - len(nodes)


def below(tree: Node) -> list[Node]:
    """The nodes of a tree, arguments before what uses them."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for arg in node.args:
                visit(arg)
            found[node] = None

    visit(tree)
    return list(found)


def bits_of(value: float) -> int:
    """A double as a register holds it."""
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def word_of(node: Node) -> int:
    """A literal that is no text, as a register holds it."""
    value = node.span.total if isinstance(node.value, Span) else node.value
    assert value is not None  # noqa: S101 - nulls have no word
    return bits_of(float(value)) if node.type.name is Name.DOUBLE else int(value)


# How many of the things that a step reads are registers, where it is not two.
_READS = {
    **dict.fromkeys((steps.LOAD, steps.TEXT_TO_LITERAL, steps.TEXT_TO_COLUMN, steps.IN_TEXT), 0),
    **dict.fromkeys((steps.IN, steps.NOT, steps.IS_NULL, steps.IS_TRUE, steps.IS_FALSE), 1),
    **dict.fromkeys((steps.NEGATE_DOUBLE, *range(steps.TO_DOUBLE, steps.CALENDAR + 1)), 1),
    steps.CHOOSE: 3,
}


def _allocated(code: list[list[int]], results: Sequence[int]) -> tuple[int, list[int]]:
    """Let values share registers once nothing reads them; how many there are, and the results'.

    A step never writes where it reads.
    """
    last = dict.fromkeys(results, len(code))
    for s, step in reversed(list(enumerate(code))):
        for value in _registers(step):
            last.setdefault(value, s)
    free, places, top = list[int](), dict[int, int](), 0
    for s, step in enumerate(code):
        done = [places[v] for v in set(_registers(step)) if v >= 0 and last[v] == s]
        for k in range(2, 2 + _READS.get(step[0], 2)):
            step[k] = places.get(step[k], step[k])
        if not free:
            free.append(top)
            top += 1
        value = step[1]
        step[1] = places[value] = free.pop()
        free += done
        if value not in last:  # nothing reads it
            free.append(step[1])
    return top, [places.get(r, r) for r in results]


def _registers(step: Sequence[int]) -> Sequence[int]:
    return step[2 : 2 + _READS.get(step[0], 2)]
