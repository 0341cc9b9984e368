"""Text to a sqlglot tree, with positions, within limits that keep any input harmless."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, NoReturn

import sqlglot
from sqlglot import Token, TokenType
from sqlglot import expressions as exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.parsers.duckdb import DuckDBParser

from tidegate.errors import Problem, ProjectError
from tidegate.sql.source import SourceText

LENGTH_MAX = 20_000
# How deep parentheses, CASE, NOT and signs may nest, and how deep the tree may be. The parser and
# the checker recurse; these keep them far from the interpreter's own limit.
NESTING_MAX = 24
DEPTH_MAX = 60
# How many levels the clauses of a SELECT add around its expressions.
_CLAUSES = 20

_OPENS = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSES = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
_SIGNS = {TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE}


class _Parser(DuckDBParser):
    FUNCTIONS: ClassVar[dict[str, Callable[..., exp.Expr]]] = {}


class Dialect(DuckDB):
    """DuckDB's SQL in which every function keeps its name and place, for our own table."""

    Parser = _Parser


def parse_expression(source: SourceText) -> exp.Expr:
    """The parsed scalar expression.

    Raises: ProjectError where the text is too long, nests too deep or is not an expression.
    """
    if len(source.text) > LENGTH_MAX:
        _refuse(source, LENGTH_MAX, f"an expression has at most {LENGTH_MAX} characters")
    tree = _parsed(source, "a SQL expression")
    if isinstance(tree, exp.Alias):
        name = tree.args["alias"]
        _refuse(source, position(name, source), f"cannot read on at `{name.name}`")
    if not isinstance(tree, exp.Condition | exp.Interval) or isinstance(tree, exp.Star):
        _refuse(source, 0, "this is not one condition or value")
    return tree


def parse_select(source: SourceText, *, length_max: int) -> exp.Select:
    """The one parsed `SELECT` of the text.

    Raises: ProjectError where the text is too long, nests too deep or is not one SELECT.
    """
    if len(source.text) > length_max:
        _refuse(source, length_max, f"a query has at most {length_max} characters")
    tree = _parsed(source, "a SQL query")
    if not isinstance(tree, exp.Select):
        _refuse(source, 0, "this is not one `SELECT`")
    if depth(tree) > DEPTH_MAX + _CLAUSES:
        _refuse(source, 0, f"this is more than {DEPTH_MAX} levels deep")
    _refuse_lists(tree, source)
    return tree


def _refuse_lists(tree: exp.Expr, source: SourceText) -> None:
    """A list changes with time, and what windows hold of the past must not."""
    for node in tree.find_all(exp.In):
        asked = node.args.get("field")
        if isinstance(asked, exp.Anonymous) and asked.name.lower() == "list":
            hint = "ask for it in the `when` of a rule; what a list holds changes with time"
            at, message = position(node, source), "lists can only be asked for in rules"
            raise ProjectError([source.problem(at, message, hint=hint)])


def _parsed(source: SourceText, expected: str) -> exp.Expr:
    _refuse_nesting(source)
    try:
        return sqlglot.parse_one(source.text, dialect=Dialect)
    except ParseError as error:
        raise ProjectError([_problem(source, error)]) from error
    except (SqlglotError, RecursionError) as error:
        raise ProjectError([source.problem(0, f"this is not {expected}")]) from error


def position(node: exp.Expr, source: SourceText) -> int:
    """Where the node begins in the text, as far as the parser tells: from 0."""
    starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
    start = min(starts, default=0)
    if isinstance(node, exp.Func | exp.Case | exp.Not | exp.Neg | exp.Interval):
        return _opening(node, source.text, start)
    return start


_NAME_BEFORE = re.compile(r"[A-Za-z_]\w*\s*\(\s*$")
_WORD_BEFORE = re.compile(r"(?:\bCASE\s+(?:WHEN\s+)?|\bNOT\s+|\bINTERVAL\s+|-\s*)$", re.IGNORECASE)


def _opening(node: exp.Expr, text: str, start: int) -> int:
    """The start of the name or keyword that opens the node; the parser keeps only its parts'."""
    pattern = _NAME_BEFORE if isinstance(node, exp.Func) else _WORD_BEFORE
    if isinstance(node, exp.Case | exp.Interval):
        pattern = _WORD_BEFORE
    found = pattern.search(text[max(0, start - 80) : start])
    return start if found is None else start - (found.end() - found.start())


def depth(node: exp.Expr) -> int:
    """How deep the tree is, found without recursion; a chain of ANDs or of ORs is one level."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        here, level = waiting.pop()
        deepest = max(deepest, level)
        chained = type(here) if isinstance(here, exp.Connector) else None
        waiting += [(c, level + (type(c) is not chained)) for c in here.iter_expressions()]
    return deepest


def _refuse_nesting(source: SourceText) -> None:
    level = signs = 0
    for token in _tokens(source):
        signs = signs + 1 if token.token_type in _SIGNS else 0
        level += (token.token_type in _OPENS) - (token.token_type in _CLOSES)
        if level + signs > NESTING_MAX:
            _refuse(source, token.start, f"this nests more than {NESTING_MAX} levels deep")


def _tokens(source: SourceText) -> list[Token]:
    try:
        tokens: list[Token] = sqlglot.tokenize(source.text, dialect=Dialect)
    except TokenError as error:
        message = "a quote or comment is not closed, or a character is not SQL"
        raise ProjectError([source.problem(_end(source.text), message)]) from error
    if not tokens:
        _refuse(source, 0, "an expression is missing")
    return tokens


def _end(text: str) -> int:
    return max(0, len(text.rstrip()) - 1)


def _problem(source: SourceText, error: ParseError) -> Problem:
    first = error.errors[0] if error.errors else {}
    seen = str(first.get("highlight") or "").strip()
    lines = source.text.split("\n")
    line, end = int(first.get("line") or 1), int(first.get("col") or 1)
    # sqlglot tells the last character of the token it stands at.
    at = sum(len(text) + 1 for text in lines[: line - 1]) + max(0, end - max(1, len(seen)))
    missing = "Required keyword" in str(first.get("description")) or not seen
    after = f" at `{seen}`" if seen else ""
    message = f"something is missing{after}" if missing else f"cannot read on{after}"
    return source.problem(min(at, _end(source.text)), message)


def _refuse(source: SourceText, at: int, message: str) -> NoReturn:
    raise ProjectError([source.problem(at, message)])
