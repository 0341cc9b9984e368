"""How each kind of parsed node is checked: literals, operators, forms, calls."""

from __future__ import annotations

from difflib import get_close_matches

from sqlglot import expressions as exp

from tidegate.sql.check import (
    HANDLERS,
    Checker,
    Handler,
    Refused,
    apply,
    condition,
    convert,
    shown,
)
from tidegate.sql.functions import FUNCTIONS
from tidegate.sql.functions.cast import cast
from tidegate.sql.functions.logic import CASE, IS_FALSE, IS_NULL, IS_TRUE, NOT
from tidegate.sql.functions.time import COUNTED, part_named, unit_named
from tidegate.sql.listed import in_list, list_of
from tidegate.sql.literals import number, span_of, whole
from tidegate.sql.tree import Node, Span, literal
from tidegate.sql.types import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    INTEGER,
    INTERVAL,
    JSON,
    NULL,
    TEXT,
    TIMESTAMP,
    Type,
    decimal,
)


def _literal(_: Checker, node: exp.Expr) -> Node:
    text = str(node.this)
    if node.args.get("is_string"):
        return literal(text, TEXT, text=shown(node))
    return number(text)


def _negated(checker: Checker, node: exp.Expr) -> Node | None:
    inner = node.this
    if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
        text = str(inner.this)
        if text.isdigit():
            return whole(-int(text), f"-{text}")
        positive = number(text)
        assert isinstance(positive.value, int | float)  # noqa: S101 - a number's literal
        return literal(-positive.value, positive.type, text=f"-{text}")
    return checker.call("unary -", [inner], node)


def _boolean(_: Checker, node: exp.Expr) -> Node:
    return literal(bool(node.this), BOOLEAN, text=shown(node))


def _null(_: Checker, __: exp.Expr) -> Node:
    return literal(None, NULL, text="NULL")


def _paren(checker: Checker, node: exp.Expr) -> Node | None:
    return checker.check(node.this)


def _binary(name: str) -> Handler:
    return lambda checker, node: checker.call(name, [node.this, node.expression], node)


def _conjunction(name: str, kind: type[exp.Connector]) -> Handler:
    def handle(checker: Checker, node: exp.Expr) -> Node | None:
        parts = [checker.check(part) for part in _flat(node, kind)]
        if any(part is None for part in parts):
            return None
        args = [condition(part) for part in parts if part is not None]
        return apply(FUNCTIONS[name], args, text=shown(node))

    return handle


def _flat(node: exp.Expr, kind: type[exp.Connector]) -> list[exp.Expr]:
    """The parts of a chain of the same connector, in order, found without recursion."""
    parts: list[exp.Expr] = []
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, kind):
            waiting += [here.expression, here.this]
        elif isinstance(here, exp.Paren) and isinstance(here.this, kind):
            waiting.append(here.this)
        else:
            parts.append(here)
    return parts


def _not(checker: Checker, node: exp.Expr) -> Node | None:
    inner = checker.check(node.this)
    return None if inner is None else Node(NOT, BOOLEAN, (condition(inner),), None, shown(node))


def _is(checker: Checker, node: exp.Expr) -> Node | None:
    inner, tested = checker.check(node.this), node.expression
    if inner is None:
        return None
    if isinstance(tested, exp.Null):
        return Node(IS_NULL, BOOLEAN, (inner,), None, shown(node))
    if not isinstance(tested, exp.Boolean):
        raise Refused(f"`{shown(node)}` is not supported", hint="IS takes NULL, TRUE or FALSE")
    by = IS_TRUE if tested.this else IS_FALSE
    return Node(by, BOOLEAN, (condition(inner),), None, shown(node))


def _like(checker: Checker, node: exp.Expr, escape: exp.Expr | None = None) -> Node | None:
    name = "ilike" if isinstance(node, exp.ILike) else "like"
    parts = [node.this, node.expression, *([escape] if escape is not None else [])]
    found = checker.call(name, parts, node)
    if found is None or not node.args.get("negate"):
        return found
    return Node(NOT, BOOLEAN, (found,), None, shown(node))


def _escape(checker: Checker, node: exp.Expr) -> Node | None:
    if not isinstance(node.this, exp.Like | exp.ILike):
        raise Refused("ESCAPE belongs to LIKE")
    return _like(checker, node.this, node.expression)


def _regexp(checker: Checker, node: exp.Expr) -> Node | None:
    flag = node.args.get("flag")
    parts = [node.this, node.expression, *([flag] if flag is not None else [])]
    return checker.call("regexp_matches", parts, node)


def _in(checker: Checker, node: exp.Expr) -> Node | None:
    written = list_of(node)
    if written is not None:
        return in_list(checker, node, written)
    if node.args.get("query") is not None or not node.expressions:
        raise Refused("IN takes a list of values", hint="write `value IN (1, 2, 3)`")
    return checker.call("in", [node.this, *node.expressions], node)


def _between(checker: Checker, node: exp.Expr) -> Node | None:
    value, text = node.this, shown(node)
    parts = checker.all([value, node.args["low"], node.args["high"]])
    if parts is None:
        return None
    low = apply(FUNCTIONS[">="], parts[:2], text=text)
    high = apply(FUNCTIONS["<="], [parts[0], parts[2]], text=text)
    return apply(FUNCTIONS["and"], [low, high], text=text)


def _case(checker: Checker, node: exp.Expr) -> Node | None:
    args: list[Node | None] = []
    for branch in node.args["ifs"]:
        args += [_when(checker, node.this, branch.this), checker.check(branch.args["true"])]
    default = node.args.get("default")
    args.append(literal(None, NULL, text="NULL") if default is None else checker.check(default))
    known = [arg for arg in args if arg is not None]
    return apply(FUNCTIONS["case"], known, text=shown(node)) if len(known) == len(args) else None


def _when(checker: Checker, value: exp.Expr | None, tested: exp.Expr) -> Node | None:
    if value is not None:
        return checker.call("=", [value, tested], tested)
    found = checker.check(tested)
    return None if found is None else condition(found)


def _if(checker: Checker, node: exp.Expr) -> Node | None:
    chosen = checker.all([node.this, node.args["true"]])
    other = node.args.get("false")
    otherwise = literal(None, NULL, text="NULL") if other is None else checker.check(other)
    if chosen is None or otherwise is None:
        return None
    args = [condition(chosen[0]), chosen[1], otherwise]
    return apply(FUNCTIONS["case"], args, text=shown(node))


def _null_if(checker: Checker, node: exp.Expr) -> Node | None:
    args = checker.all(node.expressions)
    if args is None:
        return None
    if len(args) != 2:
        raise Refused("`nullif` takes two values")
    text = shown(node)
    same = apply(FUNCTIONS["="], args, text=text)
    return Node(CASE, args[0].type, (same, literal(None, args[0].type), args[0]), None, text)


def _cast(checker: Checker, node: exp.Expr) -> Node | None:
    target = _target(node.args["to"])
    inner = checker.check(node.this)
    if inner is None:
        return None
    text = shown(node)
    if inner.is_literal and inner.value is not None and not isinstance(node, exp.TryCast):
        return convert(inner, target)
    found = cast(inner, target, text=text, fails=not isinstance(node, exp.TryCast))
    if found is None:
        times = inner.type in (TIMESTAMP, DATE, INTERVAL)
        hint = "take epoch(…) or epoch_us(…) of a time" if times else None
        raise Refused(f"{inner.type} cannot be converted to {target}", hint=hint)
    return found


_TARGETS = {
    exp.DType.BOOLEAN: BOOLEAN,
    exp.DType.BIT: BOOLEAN,
    exp.DType.INT: INTEGER,
    exp.DType.BIGINT: BIGINT,
    exp.DType.DOUBLE: DOUBLE,
    exp.DType.TEXT: TEXT,
    exp.DType.VARCHAR: TEXT,
    exp.DType.NVARCHAR: TEXT,
    exp.DType.DATE: DATE,
    exp.DType.TIMESTAMP: TIMESTAMP,
    exp.DType.TIMESTAMPNTZ: TIMESTAMP,
    exp.DType.DATETIME: TIMESTAMP,
    exp.DType.DATETIME2: TIMESTAMP,
    exp.DType.JSON: JSON,
}


def _target(type_: exp.Expr) -> Type:
    kind = type_.this
    if kind is exp.DType.DECIMAL:
        return _decimal_target([int(p.this.name) for p in type_.expressions])
    if kind not in _TARGETS:
        known = "boolean, integer, bigint, double, decimal(p,s), text, date, timestamp"
        raise Refused(f"there is no type `{shown(type_)}` here", hint=f"types are {known}")
    return _TARGETS[kind]


def _decimal_target(digits: list[int]) -> Type:
    precision, scale = [*digits, *(18, 3)[len(digits) :]] if len(digits) != 1 else (digits[0], 0)
    if not (1 <= precision <= 38 and 0 <= scale <= precision):
        raise Refused("a decimal has 1 to 38 digits, its scale among them")
    return decimal(precision, scale)


def _interval(checker: Checker, node: exp.Expr) -> Node | None:
    value, unit = node.this, node.args.get("unit")
    if isinstance(value, exp.Literal):
        return literal(span_of(value.name, unit.name if unit else ""), INTERVAL, text=shown(node))
    found = unit_named(unit.name) if unit is not None else None
    if found is None or found[0]:
        raise Refused(f"`{shown(node)}` is not supported", hint="months and years need a literal")
    inner = checker.check(value)
    if inner is None:
        return None
    return Node(COUNTED[found[1]], INTERVAL, (convert(inner, BIGINT),), None, shown(node))


def _add(checker: Checker, node: exp.Expr) -> Node | None:
    args = checker.all([node.this, node.expression])
    if args is None:
        return None
    left, right = args
    # What stands first in time arithmetic is the time.
    if left.type == INTERVAL and right.type in (TIMESTAMP, DATE):
        left, right = right, left
    if left.type in (BIGINT, INTEGER) and right.type == DATE:
        left, right = right, left
    spans = left.value, right.value
    if isinstance(spans[0], Span) and isinstance(spans[1], Span):
        months, micros = spans[0].months + spans[1].months, spans[0].micros + spans[1].micros
        return literal(Span(months, micros), INTERVAL, text=shown(node))
    if left.type == right.type == INTERVAL and (left.span.months or right.span.months):
        raise Refused("months go with no interval but a literal", hint="add them to the time")
    return apply(FUNCTIONS["+"], [left, right], text=shown(node))


def _extract(checker: Checker, node: exp.Expr) -> Node | None:
    part = part_named(node.this.name)
    if part == "epoch":
        return checker.call("epoch", [node.expression], node)
    inner = checker.check(node.expression)
    if inner is None:
        return None
    return apply(FUNCTIONS["date_part"], [_text(node.this.name), inner], text=shown(node))


def _text(value: str) -> Node:
    return literal(value, TEXT, text=f"'{value}'")


def _trim(checker: Checker, node: exp.Expr) -> Node | None:
    names = {"LEADING": "ltrim", "TRAILING": "rtrim"}
    name = names.get(str(node.args.get("position") or ""), "trim")
    chars = node.args.get("expression")
    return checker.call(name, [node.this, *([chars] if chars is not None else [])], node)


def _substring(checker: Checker, node: exp.Expr) -> Node | None:
    start = node.args.get("start") or exp.Literal.number(1)
    length = node.args.get("length")
    return checker.call("substr", [node.this, start, *([length] if length else [])], node)


def _rounded_to(name: str) -> Handler:
    def handle(checker: Checker, node: exp.Expr) -> Node | None:
        if node.args.get("decimals") is not None:
            raise Refused(f"`{name}` takes one number")
        return checker.call(name, [node.this], node)

    return handle


def _str_position(checker: Checker, node: exp.Expr) -> Node | None:
    return checker.call("strpos", [node.this, node.args["substr"]], node)


def _json_text(checker: Checker, node: exp.Expr) -> Node | None:
    path = node.expression
    inner = checker.check(node.this)
    if inner is None:
        return None
    if not isinstance(path, exp.JSONPath):
        raise Refused("the path of `->>` must be a literal", hint="write `json ->> '$.key'`")
    written = _text(path.sql(dialect="duckdb").strip("'"))
    return apply(FUNCTIONS["->>"], [inner, written], text=shown(node))


def _concat(checker: Checker, node: exp.Expr) -> Node | None:
    return checker.call("concat", node.expressions, node)


_AGGREGATES = frozenset(
    [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "var_samp",
        "var_pop",
        "first",
        "last",
        "any_value",
        "bool_and",
        "bool_or",
        "lag",
        "lead",
        "row_number",
        "rank",
        "median",
        "list",
        "array_agg",
    ]
)
_CLOCKS = frozenset({"now", "today", "get_current_timestamp", "random"})
_MANY = "aggregates and window functions look at many events; this looks at one"


def _unknown(name: str) -> Refused:
    folded = name.lower()
    near = get_close_matches(folded, [n for n in FUNCTIONS if n.isidentifier()], n=1, cutoff=0.7)
    hint = f"did you mean `{FUNCTIONS[near[0]].shown}`?" if near else None
    if folded in _AGGREGATES:
        hint = _MANY
    if folded in _CLOCKS:
        hint = "a decision does not depend on clock or chance; use the event's own time"
    return Refused(f"there is no function `{name}`", hint=hint)


def _clock(_: Checker, __: exp.Expr) -> Node:
    raise _unknown("now")


def _window(_: Checker, node: exp.Expr) -> Node:
    raise Refused(f"`{shown(node)}` is not supported", hint=_MANY)


def _call(checker: Checker, node: exp.Expr) -> Node | None:
    name = node.name.lower()
    if name == "nullif":
        return _null_if(checker, node)
    if name == "date_part" and node.expressions[:1] and node.expressions[0].name.lower() == "epoch":
        return checker.call("epoch", node.expressions[1:], node)
    if name not in FUNCTIONS or not name.isidentifier():
        raise _unknown(node.name)
    return checker.call(name, node.expressions, node)


HANDLERS.update(
    {
        exp.Literal: _literal,
        exp.Boolean: _boolean,
        exp.Null: _null,
        exp.Paren: _paren,
        exp.Neg: _negated,
        exp.Not: _not,
        exp.Is: _is,
        exp.And: _conjunction("and", exp.And),
        exp.Or: _conjunction("or", exp.Or),
        exp.NullSafeEQ: _binary("is same"),
        exp.NullSafeNEQ: _binary("is different"),
        exp.EQ: _binary("="),
        exp.NEQ: _binary("<>"),
        exp.LT: _binary("<"),
        exp.LTE: _binary("<="),
        exp.GT: _binary(">"),
        exp.GTE: _binary(">="),
        exp.Add: _add,
        exp.Sub: _binary("-"),
        exp.Mul: _binary("*"),
        exp.Div: _binary("/"),
        exp.IntDiv: _binary("//"),
        exp.Mod: _binary("%"),
        exp.Pow: _binary("pow"),
        exp.DPipe: _binary("||"),
        exp.Like: _like,
        exp.ILike: _like,
        exp.Escape: _escape,
        exp.RegexpLike: _regexp,
        exp.In: _in,
        exp.Between: _between,
        exp.Case: _case,
        exp.If: _if,
        exp.Cast: _cast,
        exp.TryCast: _cast,
        exp.Interval: _interval,
        exp.Extract: _extract,
        exp.Trim: _trim,
        exp.Substring: _substring,
        exp.Floor: _rounded_to("floor"),
        exp.Ceil: _rounded_to("ceil"),
        exp.StrPosition: _str_position,
        exp.JSONExtractScalar: _json_text,
        exp.Concat: _concat,
        exp.Anonymous: _call,
        exp.CurrentTimestamp: _clock,
        exp.CurrentDate: _clock,
        exp.Window: _window,
        exp.Filter: _window,
    }
)
