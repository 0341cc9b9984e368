"""The text of a window query, parsed into one `SELECT` whatever spelling the user brought.

Two spellings are read. The one of Azure Stream Analytics is T-SQL with a few words of its own
(`TumblingWindow`, `COLLECT`, `System.Timestamp()`, `TIMESTAMP BY`, `INTO`); the standard one is
DuckDB's SQL with the `TUMBLE` and `HOP` of the SQL standard's streaming dialects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.dialects.tsql import TSQL
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.tsql import TSQLParser

from tidegate.errors import Problem, ProjectError
from tidegate.sql.parse import DEPTH_MAX, LENGTH_MAX, depth
from tidegate.sql.parse import Dialect as Standard
from tidegate.sql.source import SourceText
from tidegate.windows.problems import Problems


class _Parser(TSQLParser):
    FUNCTIONS: ClassVar[dict[str, Callable[..., exp.Expr]]] = {}


class StreamAnalytics(TSQL):
    """Stream Analytics' SQL in which every function keeps its name and place."""

    Parser = _Parser


_DEPTH_MAX = DEPTH_MAX + 20  # the clauses stand around the expressions

# Words that only a Stream Analytics query has.
_AZURE_WORDS = re.compile(
    r"\b((tumbling|hopping|sliding|session|snapshot)window\s*\(|system\s*\.\s*timestamp\b"
    r"|timestamp\s+by\b|collect\w*\s*\(|into\b|from\s*\[)",
    re.IGNORECASE,
)
_NOT_CODE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """One parsed `SELECT`; `timestamp_by` is the column that Stream Analytics' clause names."""

    dialect: type[Dialect]
    select: exp.Select
    outputs: tuple[str, ...] = ()
    timestamp_by: tuple[str, int] | None = None


def read(problems: Problems) -> Statement:
    """The one query of the text.

    A Stream Analytics file may hold the same query several times, each with an `INTO` of its own,
    as jobs with several outputs do; they are one query with several outputs.

    Raises: ProjectError where the text cannot be parsed or holds different queries.
    """
    dialect = _dialect(problems.source.text)
    if len(problems.source.text) > LENGTH_MAX:
        problems.add(LENGTH_MAX, f"a window query has at most {LENGTH_MAX} characters")
        problems.stop()
    tokens = _tokens(problems, dialect)
    parts = list(_parts(tokens))
    if not parts:
        problems.add(0, "there is no query", hint="write `SELECT … GROUP BY …`")
        problems.stop()
    statements = [_parsed(problems, part, dialect=dialect) for part in parts]
    problems.stop()
    first = statements[0]
    for other, part in zip(statements[1:], parts[1:], strict=True):
        _same_query(problems, first, other, at=part[0].start)
    problems.stop()
    outputs = dict.fromkeys(name for s in statements for name in s.outputs)
    return Statement(dialect, first.select, tuple(outputs), first.timestamp_by)


def _dialect(text: str) -> type[Dialect]:
    return StreamAnalytics if _AZURE_WORDS.search(_NOT_CODE.sub(" ", text)) else Standard


def _tokens(problems: Problems, dialect: type[Dialect]) -> list[Token]:
    try:
        return dialect().tokenize(problems.source.text)
    except TokenError as error:
        end = max(0, len(problems.source.text.rstrip()) - 1)
        message = "a quote or comment is not closed, or a character is not SQL"
        raise ProjectError([problems.source.problem(end, message)]) from error


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each statement: cut at semicolons and before each further outer `SELECT`."""
    part: list[Token] = []
    depth = 0
    for token in tokens:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        ends = token.token_type is TokenType.SEMICOLON
        if part and depth == 0 and (ends or _begins(token, after=part)):
            yield part
            part = []
        if not ends:
            part.append(token)
    if part:
        yield part


def _begins(token: Token, *, after: Sequence[Token]) -> bool:
    if token.token_type is not TokenType.SELECT or after[0].token_type is not TokenType.SELECT:
        return False
    joined = (TokenType.UNION, TokenType.EXCEPT, TokenType.INTERSECT, TokenType.ALL)
    return after[-1].token_type not in joined


def _parsed(problems: Problems, tokens: Sequence[Token], *, dialect: type[Dialect]) -> Statement:
    kept, timestamp_by = _without_timestamp_by(tokens)
    parser = dialect().parser()
    try:
        trees = parser.parse(list(_without_table_word(kept)), problems.source.text)
    except ParseError as error:
        raise ProjectError([_unparsable(problems.source, error)]) from error
    except RecursionError as error:
        problem = problems.source.problem(tokens[0].start, "the query nests too deep")
        raise ProjectError([problem]) from error
    select = trees[0]
    if not isinstance(select, exp.Select):
        problems.add(tokens[0].start, "a window query is one `SELECT`")
        return Statement(dialect, exp.Select())
    if depth(select) > _DEPTH_MAX:
        problems.add(tokens[0].start, "the query nests too deep")
        return Statement(dialect, exp.Select())
    _plain_calls(select)
    into = select.args.get("into")
    outputs = (into.this.name,) if into is not None else ()
    select.set("into", None)
    return Statement(dialect, select, outputs, timestamp_by)


def _plain_calls(select: exp.Select) -> None:
    """Gives `min` and `max`, which DuckDB's parser treats apart, the form of other calls."""
    for node in list(select.find_all(exp.Min, exp.Max)):
        arguments = [node.this, *node.expressions]
        node.replace(exp.Anonymous(this=node.sql_name().lower(), expressions=arguments))


def _without_timestamp_by(tokens: Sequence[Token]) -> tuple[list[Token], tuple[str, int] | None]:
    """The tokens without `TIMESTAMP BY column`, and the column with its place."""
    for i, (first, second) in enumerate(pairwise(tokens)):
        if (first.text.upper(), second.text.upper()) == ("TIMESTAMP", "BY") and i + 2 < len(tokens):
            end = i + 3
            while end + 1 < len(tokens) and tokens[end].token_type is TokenType.DOT:
                end += 2
            named = tokens[end - 1]
            return [*tokens[:i], *tokens[end:]], (named.text, named.start)
    return list(tokens), None


def _without_table_word(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens without the `TABLE` in `TUMBLE(TABLE events, …)`, which sqlglot does not read."""
    for i, token in enumerate(tokens):
        calls = i >= 2 and tokens[i - 2].text.upper() in ("TUMBLE", "HOP")
        if not (calls and token.text.upper() == "TABLE"):
            yield token


def _unparsable(source: SourceText, error: ParseError) -> Problem:
    detail = error.errors[0] if error.errors else {}
    seen = str(detail.get("highlight") or "")
    lines = source.text.split("\n")
    ahead = sum(len(line) + 1 for line in lines[: int(detail.get("line") or 1) - 1])
    place = max(0, ahead + int(detail.get("col") or 1) - max(len(seen), 1))
    message = f"`{seen}` is not expected here" if seen else "the query cannot be read"
    return source.problem(min(place, len(source.text)), message)


def _same_query(problems: Problems, first: Statement, other: Statement, *, at: int) -> None:
    if first.dialect is Standard or first.select != other.select:
        hint = (
            "put each query in a file of its own; the same query may be repeated with other `INTO`s"
        )
        problems.add(at, "a file holds one window query, and this is another one", hint=hint)
