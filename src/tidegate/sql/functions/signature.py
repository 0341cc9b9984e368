"""What a function takes and gives: the form of every entry in the function table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import (
    NULL,
    NUMERIC,
    TEMPORAL,
    TEXT,
    TEXTUAL,
    Name,
    Type,
    common_of,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a function: the types its arguments are converted to, and its result."""

    params: tuple[Type, ...]
    result: Type
    operation: Operation


Resolve = Callable[[Sequence[Type]], Signature | None]
Prepare = Callable[[Sequence[Node]], str | None]
Settle = Callable[[Sequence[Node]], Signature | None]


@dataclass(frozen=True, slots=True)
class Function:
    """An entry of the function table: how it is shown, what it takes, how it is computed.

    `resolve` gives the signature for argument types, or none where they do not fit. `literals`
    are the positions that must be literals; `prepare` looks at the arguments when the expression
    is compiled and returns what is wrong with them, if anything. `settle` stands in for `resolve`
    where the result depends on a literal's value.
    """

    name: str
    shown: str
    resolve: Resolve
    literals: frozenset[int] = frozenset()
    prepare: Prepare | None = None
    settle: Settle | None = None


def fits(given: Type, wanted: Type) -> bool:
    """Whether a value of the given type is taken where the wanted type is asked for."""
    if given in (wanted, NULL):
        return True
    match wanted.name:
        case Name.DOUBLE:
            return given.name in NUMERIC
        case Name.BIGINT:
            return given.name is Name.INTEGER
        case Name.TEXT:
            return given.name in TEXTUAL
        case Name.TIMESTAMP:
            return given.name in TEMPORAL
        case _:
            return False


def adapted(args: Sequence[Node]) -> list[Type]:
    """The arguments' types; a text literal takes the type of what it stands beside."""
    others = {a.type for a in args if not _is_text(a) and a.type != NULL}
    if not others or any(type_.name in TEXTUAL for type_ in others):
        return [a.type for a in args]
    return [NULL if _is_text(a) else a.type for a in args]


def _is_text(node: Node) -> bool:
    return node.is_literal and node.type == TEXT and node.value is not None


def takes(*params: Type, gives: Type, by: Operation, optional: int = 0) -> Resolve:
    """A resolver for fixed parameter types, the last `optional` of which may be left out."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        if not len(params) - optional <= len(types) <= len(params):
            return None
        if not all(fits(g, w) for g, w in zip(types, params, strict=False)):
            return None
        return Signature(params[: len(types)], gives, by)

    return resolve


def first_of(*resolvers: Resolve) -> Resolve:
    """A resolver that tries others in order."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        found = (resolver(types) for resolver in resolvers)
        return next((signature for signature in found if signature is not None), None)

    return resolve


def mixed(by: Operation, *, gives: Type | None = None, least: int = 1) -> Resolve:
    """A resolver for any number of values of one common type; the result has it too, or `gives`."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        shared = common_of(types)
        if len(types) < least or shared is None:
            return None
        return Signature((shared,) * len(types), shared if gives is None else gives, by)

    return resolve
