"""Views over the tables that everybody wants, and columns that are nobody's but Tidegate's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """A view: the tables that it reads, and its SELECT."""

    tables: frozenset[str]
    sql: str


# The last label of each event with the decision beside it, which is null where there is none yet.
_LABELLED = """
WITH newest AS (
  SELECT * FROM labels
  QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY log_offset DESC) = 1
), decided AS (
  SELECT * FROM decisions
  WHERE event_id IN (SELECT event_id FROM newest)
  QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY log_offset DESC) = 1
)
SELECT
  newest.event_id, newest.label, newest.source, newest.known_at, newest.at AS labelled_at,
  newest.author, newest.log_offset AS label_offset,
  decided.event_time, decided.action, decided.score, decided.rules, decided.version,
  decided.decided_at, decided.log_offset
FROM newest LEFT JOIN decided USING (event_id)
"""

VIEWS: Mapping[str, View] = {"labelled": View(frozenset({"labels", "decisions"}), _LABELLED)}

# Columns that are not shown: labels carry the columns of their event for the features' sake.
UNSHOWN: Mapping[str, frozenset[str]] = {"labels": frozenset({"event"})}


def views_of(tables: Collection[str]) -> list[str]:
    """The views that can be had of tables, those named like a table apart."""
    return [name for name, v in VIEWS.items() if v.tables <= set(tables) and name not in tables]


def behind(names: Collection[str], views: Collection[str]) -> set[str]:
    """The names, and those of the tables that the views among them read."""
    return {*names}.union(*(VIEWS[name].tables for name in views if name in names))
