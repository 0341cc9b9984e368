"""The answers of `POST /v1/score`, from what was decided."""

from __future__ import annotations

from msgspec import UNSET

from tidegate.access.pii import hidden_features
from tidegate.events.decode import DeadRecord
from tidegate.hiding import Hiding
from tidegate.service.score.shapes import NotScored, Reason, Scored
from tidegate.verdicts import Decided


def scored(
    found: Decided, *, latency_us: int, is_repeated: bool = False, hiding: Hiding | None = None
) -> Scored:
    """The answer that tells of a decision, to somebody from whom `hiding` hides features."""
    features = found.features if hiding is None else hidden_features(found.features, hiding)
    live = [r for r in found.rules if r["mode"] == "live"]
    return Scored(
        found.event_id,
        found.action,
        found.score,
        [Reason(r["name"], r["action"], r["reason"]) for r in live],
        features,
        found.version,
        found.log_offset,
        latency_us,
        duplicate=True if is_repeated else UNSET,
    )


def not_scored(offset: int, dead: DeadRecord) -> NotScored:
    """The answer on a record that is no event."""
    return NotScored(offset, dead.reason.value, dead.column, dead.message)
