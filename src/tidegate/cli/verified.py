"""A verification shown in a terminal."""

from __future__ import annotations

import json

from tidegate.cli.terminal import say
from tidegate.verify import SHOWN_MAX, Difference, Verified


def show(found: Verified) -> bool:
    """Print what a verification found, the first differing ids with both values; True if none."""
    for difference in found.differences:
        _difference(difference)
    if found.differing > len({(d.table, d.log_offset) for d in found.differences}):
        say(f"… {found.differing} rows in all, the first {SHOWN_MAX} differences shown")
    compared = " and ".join(f"{rows} rows of {name}" for name, rows in found.rows.items() if rows)
    offsets = f"offsets {found.first_offset} to {found.next_offset}"
    if found.is_trimmed:
        say(f"the log was trimmed: computed from the snapshot at offset {found.begun_at} on")
    elif found.begun_at:
        say(f"computed from the snapshot at offset {found.begun_at} on")
    else:
        say("computed from the beginning of the log")
    if found.equal:
        say(f"{compared or 'no rows'} came out equal at {offsets}", style="green")
    else:
        say(f"{found.differing} rows differ at {offsets}; compared: {compared}", style="red")
    return found.equal


def _difference(difference: Difference) -> None:
    place = f"{difference.table}: offset {difference.log_offset} id {difference.event_id}"
    if difference.column is not None:
        say(f"{place}: {difference.column} is {_shown(difference.given)}")
        say(f"  the log gives {_shown(difference.computed)}")
    elif difference.given is None:
        say(f"{place}: the row is missing")
        say(f"  the log gives {_shown(difference.computed)}")
    else:
        say(f"{place}: the row does not follow from the log")
        say(f"  it is {_shown(difference.given)}")


def _shown(value: object) -> str:
    return "null" if value is None else json.dumps(value, default=str, ensure_ascii=False)
