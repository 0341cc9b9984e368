"""Calls whose nulls nobody sees: all that reads them says what stands for a null."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.features.compile import Feature, FeaturePlan


def fills_of(plan: FeaturePlan) -> Mapping[str, int]:
    """By the name of such a call, the word that stands for null, which is written at once.

    `coalesce(avg(x) OVER w, 0)` is so no expression of its own any more, for which a column would
    have to be read and another one written.
    """
    calls = {name for entity in plan.entities for name in entity.outputs}
    kept: dict[str, int] = {}
    others = set[str]().union(*plan.reads.values())
    for feature in plan.features:
        column, fill = filled(feature) or ("", 0)
        if column in calls and kept.setdefault(column, fill) == fill:
            continue
        others |= feature.columns
    return {name: fill for name, fill in kept.items() if name not in others}


def filled(feature: Feature) -> tuple[str, int] | None:
    """A call and what stands for its nulls, if that is all that a feature is."""
    return None if feature.expression is None else feature.expression.filled
