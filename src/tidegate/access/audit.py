"""Changes of keys taken over into the event log, where they are part of the audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.access.keys import Change, Keys
from tidegate.controls import AuditRecord

SOURCE = "keys"

Append = Callable[[Sequence[AuditRecord]], object]


def relay(keys: Keys, append: Append) -> int:
    """Append what the event log has not taken yet, by `append`; how many changes that were.

    After a crash between the two a change may be there twice; its number tells.
    Raises: as `append` and `Keys`.
    """
    changes = keys.unlogged()
    if changes:
        append([_record(change) for change in changes])
        keys.mark_logged(changes)
    return len(changes)


def _record(change: Change) -> AuditRecord:
    detail = {**change.detail, "changed_at_us": change.at_us, "change": change.id}
    action = f"key.{change.action}"
    return AuditRecord(action, subject=change.prefix, author=change.author, detail=detail)
