"""`value IN LIST('name')`: whether a value is on a list that people keep while the stream runs.

What is on a list changes from event to event, so the answer is no matter of the expression: it is
a column that whoever evaluates puts beside those of the event, one for each question that the
expressions ask (`Question`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl
from sqlglot import expressions as exp

from tidegate.schema import ColumnType, Kind
from tidegate.sql.canonical import canonical
from tidegate.sql.check import Checker, Refused, convert, shown
from tidegate.sql.tree import COLUMN, Node, Operation
from tidegate.sql.types import BOOLEAN, NULL, Name, Type, as_column, common


@dataclass(frozen=True, slots=True)
class Question:
    """Whether `value` is on the list `name`; the answers stand in the boolean column `column`.

    `type` is the column type of the value. An answer is null where the value is.
    """

    column: str
    name: str
    value: Node
    type: ColumnType

    @property
    def reads(self) -> frozenset[str]:
        """The columns that the value is computed from."""
        return frozenset(str(n.value) for n in self.value.walk() if n.op is COLUMN)


def list_of(node: exp.Expr) -> exp.Anonymous | None:
    """The `LIST(…)` of an `IN`, if there is one."""
    found = node.args.get("field")
    if isinstance(found, exp.Anonymous) and found.name.lower() == "list":
        return found
    return None


def in_list(checker: Checker, node: exp.Expr, written: exp.Anonymous) -> Node | None:
    """The checked question. Raises: Refused."""
    name, known = _name(written), checker.lists
    if known is None:
        hint = "ask for it in the `when` of a rule; what a list holds changes with time"
        raise Refused("lists can only be asked for in rules", hint=hint)
    if name not in known:
        raise Refused(f"there is no list `{name}`", hint=_near(name, known), at=written)
    value = checker.check(node.this)
    if value is None:
        return None
    if any(q.column == n.value for q in checker.questions.values() for n in value.walk()):
        raise Refused(f"`{shown(node.this)}` asks for a list itself", hint="ask one by one")
    value, type_ = _fitting(value, known[name], node)
    text = canonical(node.this, checker.columns, checker.aliases)
    question = Question(f"{text} IN LIST('{name}')", name, value, type_)
    checker.questions[question.column] = question
    answer = Node(COLUMN, BOOLEAN, (), question.column, shown(node))
    if all(n.op.fault is None for n in value.walk()):
        return answer
    return Node(ANSWER, BOOLEAN, (answer, value), None, shown(node))


def _answer(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return pl.when(args[1].is_not_null()).then(args[0])


# The value stands beside the answer so that what cannot be computed of it is told.
ANSWER = Operation("in list", _answer, once=True)


def _name(written: exp.Anonymous) -> str:
    parts = written.expressions
    if len(parts) == 1 and isinstance(parts[0], exp.Literal) and parts[0].args.get("is_string"):
        return str(parts[0].this)
    raise Refused("LIST takes the name of one list in quotes", hint="as in LIST('blocked_cards')")


def _near(name: str, known: Mapping[str, ColumnType]) -> str:
    near = get_close_matches(name.lower(), [*known], n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    if not known:
        return f'declare it in tidegate.toml: `[lists.{name}]` with `type = "text"`'
    return "known here: " + ", ".join(f"`{k}`" for k in known)


def _fitting(value: Node, wanted: ColumnType, node: exp.Expr) -> tuple[Node, ColumnType]:
    """The value in a type whose values can be on such a list, and that type."""
    target = Type.of(wanted)
    shared = common(value.type, target)
    scaled = shared is not None and shared.name is Name.DECIMAL and shared.scale == target.scale
    if value.type == NULL:
        return convert(value, target), wanted
    if value.type.name is target.name and value.type.scale == target.scale:
        shared = value.type
    elif shared is None or (shared != target and not scaled):
        hint = f"convert it: CAST({shown(node.this)} AS {wanted})"
        message = f"`{shown(node.this)}` is {value.type}, but the list holds {wanted}"
        raise Refused(message, hint=hint)
    type_ = as_column(shared)
    if type_ is None or (type_.kind is Kind.DECIMAL and type_.scale != wanted.scale):
        raise Refused(f"a value of type {shared} cannot be asked for", hint="CAST it")
    return convert(value, Type.of(type_)), type_
