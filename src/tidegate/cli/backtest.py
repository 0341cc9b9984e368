"""`tidegate backtest`: other rules over history, shown in a terminal or given to other programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from tidegate.backtest.result import Backtested


class Layout(StrEnum):
    """How the figures are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


_Day = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, UTC; else all history."),
]
_LastDay = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, UTC.")
]


def backtest(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The project's folder.", show_default=False)
    ],
    rules: Annotated[
        Path, typer.Option(help="A file laid out as rules.toml, anywhere.", show_default=False)
    ],
    first: _Day = None,
    last: _LastDay = None,
    amount: Annotated[
        str | None,
        typer.Option(help="The column of the events' amounts; `amount` if there is one."),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="The column that says what is fraud; else the labels that came."),
    ] = None,
    features: Annotated[
        str, typer.Option(help="The table with the features, such as one that a replay made.")
    ] = "features",
    with_replay: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--replay", help="Compute the features anew before.")
    ] = False,
    shadow_as_live: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--shadow-as-live", help="Let the file's shadow rules decide.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="A report with charts to write: .html or .png.")
    ] = None,
    layout: Annotated[Layout, typer.Option("--format", help="How the figures are written.")] = (
        Layout.TABLE
    ),
) -> None:
    """Try other rules over history, beside the current ones and the labels."""
    import tidegate
    from tidegate.backtest.report import check
    from tidegate.cli.progress import stepping
    from tidegate.cli.terminal import remark

    if first is not None and last is not None and last < first:
        raise typer.BadParameter("--to lies before --from")
    if report is not None:
        check(report)
    shop = tidegate.open(folder)
    with stepping("replaying, comparing" if with_replay else "comparing") as progress:
        found = shop.backtest(
            rules,
            first=None if first is None else first.date(),
            until=None if last is None else last.date() + timedelta(days=1),
            amount=amount,
            label_column=label_column,
            features=features,
            with_replay=with_replay,
            shadow_as_live=shadow_as_live,
            progress=progress,
        )
    _WRITERS[layout](found)
    if report is not None:
        found.report(report)
        remark(f"written to {report}")


# -- for people ------------------------------------------------------------------------------------


_CHANGES = {
    "newly_caught": "amount_saved",
    "newly_disturbed": "amount_blocked_wrongly",
    "no_longer_caught": "amount_missed",
    "no_longer_disturbed": "amount_released",
}
_STOPPED = {
    "hits": "stopped",
    "fraud": "fraud caught",
    "legitimate": "legitimate disturbed",
    "precision": "precision",
    "recall": "recall",
}
_OF_RULES = {
    "rule": "rule",
    "change": "change",
    "action": "action",
    "mode": "mode",
    "current_hits": "hits",
    "candidate_hits": "→",
    "current_precision": "precision",
    "candidate_precision": "→",
    "current_recall": "recall",
    "candidate_recall": "→",
    "newly_caught": "newly caught",
    "newly_disturbed": "newly disturbed",
    "no_longer_caught": "no longer caught",
    "no_longer_disturbed": "no longer disturbed",
}
_OF_DAYS = {
    "day": "day",
    "events": "events",
    "fraud": "fraud",
    "current_fraud": "caught",
    "candidate_fraud": "→",
    "current_legitimate": "disturbed",
    "candidate_legitimate": "→",
    "newly_caught": "newly caught",
    "newly_disturbed": "newly disturbed",
    "no_longer_caught": "no longer caught",
    "no_longer_disturbed": "no longer disturbed",
    "amount_saved": "saved",
    "amount_blocked_wrongly": "blocked wrongly",
}
_DAYS_MAX = 100


def _show(found: Backtested) -> None:
    from tidegate.cli.rows import print_table
    from tidegate.cli.terminal import say

    (total,) = found.total.to_pylist()
    sides = ("current", "candidate")
    stopped = [
        [name, *(_rounded(total[f"{s}_{n}"]) for s in sides)] for n, name in _STOPPED.items()
    ]
    print_table(["", *sides], stopped)
    say()
    changes = [[n.replace("_", " "), total[n], _rounded(total[a])] for n, a in _CHANGES.items()]
    print_table(["", "events", "amount"], changes)
    say()
    _show_rows(found.rules, _OF_RULES)
    _show_rows(found.days.slice(0, _DAYS_MAX), _OF_DAYS)
    if found.days.num_rows > _DAYS_MAX:
        say(f"… {found.days.num_rows} days in all, the first {_DAYS_MAX} shown: --format csv")
    for text in found.remarks:
        say(f"remark: {text}", style="yellow")
    counts = ", ".join(f"{total[n]} {n}" for n in ("fraud", "legitimate", "unlabelled"))
    say(f"{total['events']} events: {counts}; {found.labels}")
    versions = f"version {found.current_version}, candidate {found.candidate_version}"
    speed = f"{found.rate / 1e6:.1f} million events x rules a second"
    say(f"{found.changed_events} events are decided otherwise; {versions}; {speed}")


def _show_rows(table: pa.Table, names: Mapping[str, str]) -> None:
    """The columns of a table under other names, and an empty line; nothing without rows."""
    from tidegate.cli.rows import print_table
    from tidegate.cli.terminal import say

    rows = [[_rounded(v) for v in row.values()] for row in table.select([*names]).to_pylist()]
    if rows:
        print_table([*names.values()], rows)
        say()


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


# -- for other programs ----------------------------------------------------------------------------


def _json(found: Backtested) -> None:
    """One JSON object: what was compared, `total`, `rules`, `days`, `rules_by_day`, `remarks`."""
    import msgspec

    (total,) = found.total.to_pylist()
    tables = {n: getattr(found, n).to_pylist() for n in ("rules", "days", "rules_by_day")}
    names = ("candidate", "current_version", "candidate_version", "amount", "labels", "remarks")
    body = {n: getattr(found, n) for n in (*names, "changed_events")}
    encoder = msgspec.json.Encoder(decimal_format="number")
    sys.stdout.buffer.write(encoder.encode({**body, "total": total, **tables}) + b"\n")
    sys.stdout.buffer.flush()


_SCOPES = ("scope", "day", "rule")


def _csv(found: Backtested) -> None:
    """A line each for the total, each rule, each day, and each rule on each day."""
    tables = {
        "total": found.total,
        "rule": found.rules,
        "day": found.days,
        "rule_day": found.rules_by_day,
    }
    names = dict.fromkeys(_SCOPES)
    names |= dict.fromkeys(n for table in tables.values() for n in table.column_names)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for scope, table in tables.items():
        writer.writerows(_line({"scope": scope, **row}, [*names]) for row in table.to_pylist())


def _line(row: Mapping[str, Any], names: Sequence[str]) -> list[object]:
    return ["" if row.get(name) is None else row[name] for name in names]


_WRITERS = {Layout.TABLE: _show, Layout.JSON: _json, Layout.CSV: _csv}
