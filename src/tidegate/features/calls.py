"""The functions that go with OVER: their names, what they take and what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.features.plan import Aggregate
from tidegate.schema import ColumnType, Kind

BIGINT = ColumnType(Kind.BIGINT)
DOUBLE = ColumnType(Kind.DOUBLE)
BOOLEAN = ColumnType(Kind.BOOLEAN)

_NUMBERS = frozenset({Kind.BIGINT, Kind.DOUBLE, Kind.DECIMAL})
_ANY = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Function:
    """One function: `takes` are the kinds of its argument.

    `filters` says whether FILTER goes with it, `distinct` what DISTINCT makes of it (none where
    DISTINCT is refused). `sums_booleans` says that booleans are taken as 1 and 0.
    """

    aggregate: Aggregate
    takes: frozenset[Kind] = _ANY
    filters: bool = True
    distinct: Aggregate | None = None
    sums_booleans: bool = False

    def result(self, argument: ColumnType) -> ColumnType:
        """The type of the value for an argument of the type."""
        match self.aggregate:
            case Aggregate.COUNT | Aggregate.COUNT_DISTINCT:
                return BIGINT
            case Aggregate.SUM if argument.kind is Kind.DECIMAL:
                return ColumnType(Kind.DECIMAL, 18, argument.scale)
            case (
                Aggregate.AVG
                | Aggregate.VAR_POP
                | Aggregate.VAR_SAMP
                | Aggregate.STDDEV_POP
                | Aggregate.STDDEV_SAMP
            ):
                return DOUBLE
            case _:
                return argument


def _number(aggregate: Aggregate) -> Function:
    return Function(aggregate, _NUMBERS)


def _extreme(aggregate: Aggregate) -> Function:
    takes = _NUMBERS | {Kind.BOOLEAN, Kind.TIMESTAMP}
    return Function(aggregate, takes, distinct=aggregate)


def _truth(aggregate: Aggregate) -> Function:
    return Function(aggregate, frozenset({Kind.BOOLEAN}), distinct=aggregate)


def _row(aggregate: Aggregate) -> Function:
    return Function(aggregate, filters=False)


# By DuckDB's names. `count_if` gives null over no rows there, and so it does here.
FUNCTIONS: Mapping[str, Function] = {
    "count": Function(Aggregate.COUNT, distinct=Aggregate.COUNT_DISTINCT),
    "sum": Function(Aggregate.SUM, _NUMBERS | {Kind.BOOLEAN}, sums_booleans=True),
    "count_if": Function(Aggregate.SUM, frozenset({Kind.BOOLEAN}), sums_booleans=True),
    "countif": Function(Aggregate.SUM, frozenset({Kind.BOOLEAN}), sums_booleans=True),
    "avg": _number(Aggregate.AVG),
    "mean": _number(Aggregate.AVG),
    "min": _extreme(Aggregate.MIN),
    "max": _extreme(Aggregate.MAX),
    "stddev": _number(Aggregate.STDDEV_SAMP),
    "stddev_samp": _number(Aggregate.STDDEV_SAMP),
    "stddev_pop": _number(Aggregate.STDDEV_POP),
    "variance": _number(Aggregate.VAR_SAMP),
    "var_samp": _number(Aggregate.VAR_SAMP),
    "var_pop": _number(Aggregate.VAR_POP),
    "bool_and": _truth(Aggregate.BOOL_AND),
    "bool_or": _truth(Aggregate.BOOL_OR),
    "first": _row(Aggregate.FIRST),
    "first_value": _row(Aggregate.FIRST),
    "arbitrary": _row(Aggregate.FIRST),
    "last": _row(Aggregate.LAST),
    "last_value": _row(Aggregate.LAST),
    "lag": _row(Aggregate.LAG),
}

# DuckDB has these as well; here they are refused by name, not as unknown.
OTHERS = frozenset(
    [
        *("any_value", "approx_count_distinct", "approx_quantile", "arg_max", "arg_min"),
        *("array_agg", "bit_and", "bit_or", "bit_xor", "corr", "count_star", "covar_pop"),
        *("covar_samp", "cume_dist", "dense_rank", "entropy", "fill", "fsum", "group_concat"),
        *("histogram", "kurtosis", "lead", "list", "mad", "max_by", "median", "min_by", "mode"),
        *("nth_value", "ntile", "percent_rank", "product", "quantile", "quantile_cont"),
        *("quantile_disc", "rank", "rank_dense", "regr_slope", "row_number", "sem", "skewness"),
        *("string_agg", "sumkahan"),
    ]
)
KNOWN = (
    "count, sum, avg, min, max, stddev, variance, bool_and, bool_or, count_if, first_value, "
    "last_value, lag"
)
