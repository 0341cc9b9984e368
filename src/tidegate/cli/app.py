"""The commands of `tidegate`.

What a command needs is imported inside it, so that `tidegate check` does not wait for compiled
kernels, nor `tidegate --help` for anything.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate import memory
from tidegate.cli.backtest import backtest
from tidegate.cli.keys import keys
from tidegate.cli.labels import labels
from tidegate.cli.lists import lists
from tidegate.cli.top import top
from tidegate.cli.versions import add_to as add_versions
from tidegate.errors import InputError, ProjectError, TidegateError

if TYPE_CHECKING:
    from tidegate.workspace import Taken, Workspace

AMISS, USAGE, FAILED, INTERRUPTED = 1, 2, 3, 130  # exit codes; the page docs/cli.md explains them

app = typer.Typer(
    help="Fraud detection on event streams, in SQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain lines, quick to start, the same in a terminal and in a pipe
    pretty_exceptions_enable=False,  # they would show local variables, events among them
)
generate = typer.Typer(
    help="Make events, for a server, a file or standard output.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(generate, name="generate")
letters = typer.Typer(rich_markup_mode=None)
app.add_typer(letters, name="deadletters", invoke_without_command=True)
app.add_typer(keys, name="keys")
app.add_typer(labels, name="labels")

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The project's folder.", show_default=False)
]


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="How the rows are written; by the ending of --output, else a table."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same events.")]
To = Annotated[str, typer.Option(help="A URL, a file, or - for standard output.")]
Reason = Annotated[str | None, typer.Option(help="Only those of this reason.", show_default=False)]
Clear = Annotated[
    bool, typer.Option("--clear", help="Show columns marked pii in clear, not as pseudonyms.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file to write to; else standard output.")
]


@app.command()
def new(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder to make.", show_default=False)
    ],
    example: Annotated[str, typer.Option(help="The example to begin with.")] = "store",
) -> None:
    """Make a project folder to edit."""
    from tidegate.project.examples import new

    for path in new(folder, example=example):
        typer.echo(path)
    typer.echo(f"next: tidegate check {folder}; tidegate run {folder}")


@app.command()
def check(folder: Folder) -> None:
    """Show every mistake with file:line:column, the line, a caret and a hint."""
    from tidegate.program import Program
    from tidegate.project.project import load

    program = Program.compile(load(folder))
    rules, windows, sinks = program.rules.rules, program.windows, program.project.sinks
    features = len(program.features.features) if program.features else 0
    typer.echo(
        f"{folder}: version {program.version}, {len(program.schema)} columns, {features} features, "
        f"{len(rules)} rules, {len(windows)} window queries, {len(sinks)} sinks; no mistakes"
    )


@app.command()
def run(
    folder: Folder,
    host: Annotated[str | None, typer.Option(help="Instead of `service.host`.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Instead of `service.port`; 0: any.")
    ] = None,
) -> None:
    """Run the project: server, engine, tables and sinks in one process."""
    from tidegate.project.project import load
    from tidegate.service.server import serve

    project = load(folder)
    service = project.service
    raise typer.Exit(
        serve(project, host=host or service.host, port=service.port if port is None else port)
    )


@generate.command("store")
def generate_store(
    count: Annotated[int, typer.Option(min=1, help="How many events.")] = 1_000,
    seed: Seed = 1,
    to: To = "-",
    rate: Annotated[float, typer.Option(min=0.001, help="Events a second of event time.")] = 10.0,
    start: Annotated[
        datetime | None,
        typer.Option(help="First event time, UTC; so that the last is now if absent."),
    ] = None,
    missing: Annotated[float, typer.Option(min=0, max=1, help="Share without `store_id`.")] = 0.1,
    unreadable: Annotated[float, typer.Option(min=0, max=1, help="Share of broken records.")] = 0.0,
    repeated: Annotated[
        float, typer.Option(min=0, max=1, help="Share of events sent twice.")
    ] = 0.0,
) -> None:
    """Make sales and inventory events of web stores."""
    from tidegate.cli.generate import Store, send

    made = Store(
        count=count,
        seed=seed,
        rate_per_second=rate,
        start=start,
        missing_store_share=missing,
        unreadable_share=unreadable,
        duplicate_share=repeated,
    )
    send(made, to=to)


@generate.command("cards")
def generate_cards(
    days: Annotated[int, typer.Option(min=1, help="How many days of payments.")] = 30,
    seed: Seed = 1,
    to: To = "-",
    start: Annotated[datetime, typer.Option(help="When the first day begins, UTC.")] = "2018-04-01",  # type: ignore[assignment] # read as if it had been typed
    customers: Annotated[int, typer.Option(min=1, max=1_000_000, help="Who pay.")] = 5_000,
    terminals: Annotated[int, typer.Option(min=1, max=100_000, help="Where they pay.")] = 10_000,
) -> None:
    """Make card payments with three kinds of fraud, and failed logins."""
    from tidegate.cli.generate import Cards, send

    send(Cards(days=days, seed=seed, start=start, customers=customers, terminals=terminals), to=to)


@app.command()
def ingest(
    folder: Folder,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="NDJSON, JSON, CSV, Parquet, or gzip of them."),
    ],
) -> None:
    """Take the records of files, beside a running server or without one."""
    from tidegate.cli.progress import reading

    shop = _open(folder)
    try:
        with reading(files) as progress:
            taken = shop.ingest(files, progress=progress)
    except KeyboardInterrupt:
        _remark("stopped; to take the files again adds only what is missing")
        raise typer.Exit(INTERRUPTED) from None
    _tell(taken, "taken")


@app.command()
def query(
    folder: Folder,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT in DuckDB's SQL.", show_default=False)
    ],
    dialect: Annotated[
        str,
        typer.Option(
            help="Whose SQL it is: duckdb, bigquery, athena, trino, tsql, snowflake or spark."
        ),
    ] = "duckdb",
    format: FormatOption = None,  # noqa: A002 - named as on the command line
    output: Output = None,
    clear: Clear = False,  # noqa: FBT002 - an option by name
) -> None:
    """Ask the tables in SQL.

    There are events, features, decisions, dead_letters, duplicates, late_rows, and one for each
    window query.
    """
    from tidegate.cli.rows import write

    shop = _open(folder)
    found = shop.query(sql, dialect=dialect, clear=clear)
    _tell_hidden(shop, clear=clear)
    for note in found.notes:
        _remark(f"note: {note}")
    write(found, format and format.value, output)


@app.command()
def tables(folder: Folder) -> None:
    """List the tables with their rows, files and bytes."""
    from tidegate.cli.rows import print_table

    found = _open(folder).tables()
    rows = [[t.name, t.rows, t.files, t.bytes] for t in found]
    print_table(["table", "rows", "files", "bytes"], rows)


@app.command()
def reconcile(
    folder: Folder,
    by_hour: Annotated[bool, typer.Option("--hours", help="A line for each hour as well.")] = False,  # noqa: FBT002 - an option by name
) -> None:
    """Count and compare each stage with the one before it, down to the missing ids."""
    from tidegate.cli.progress import stepping
    from tidegate.cli.reconciled import show

    shop = _open(folder)
    with stepping("comparing") as progress:
        found = shop.reconcile(progress=progress)
    if not show(found, by_hour=by_hour):
        raise typer.Exit(AMISS)


@app.command()
def features(
    folder: Folder,
    entities: Annotated[
        list[str] | None,
        typer.Option(
            "--entity",
            metavar="COLUMN=VALUE",
            help="Whose values to show, as in card=4711 or store=7,terminal=12; a name alone is "
            "the entity without one. May be given again.",
        ),
    ] = None,
    explain: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--explain", help="Show what is kept, in bytes, and what is shared.")
    ] = False,
    format: FormatOption = None,  # noqa: A002 - named as on the command line
    output: Output = None,
    clear: Clear = False,  # noqa: FBT002 - an option by name
) -> None:
    """Show an entity's features as of the newest event, or what the features keep."""
    from tidegate.cli.rows import Shown, write
    from tidegate.cli.terminal import say

    if bool(entities) == explain:
        raise typer.BadParameter("give --entity COLUMN=VALUE, or --explain")
    shop = _open(folder)
    if entities:
        found = shop.entity(*entities, clear=clear)
        _tell_hidden(shop, clear=clear)
        write(Shown(found), format and format.value, output)
        return
    kept, shared = shop.explain()
    write(Shown(kept), None, None)
    say()
    write(Shown(shared), None, None)


@app.command()
def replay(
    folder: Folder,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="A table, or files (NDJSON, JSON, CSV, Parquet); the events if absent."
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="A table, or a file in .parquet or .ndjson.")] = "replay",
    clear: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--clear", help="Write columns marked pii to a file in clear.")
    ] = False,
) -> None:
    """Compute features and decisions over history, by the project as its files are now."""
    from tidegate.cli.progress import stepping
    from tidegate.cli.replayed import show

    shop = _open(folder)
    with stepping("replaying") as progress:
        found = shop.replay(source, to=to, clear=clear, progress=progress)
    show(found)
    if found.hidden:
        _remark(f"pseudonyms stand in {', '.join(found.hidden)}; --clear writes the values")


@app.command()
def verify(
    folder: Folder,
    first: Annotated[
        int, typer.Option("--from", min=0, help="The log offset from which on to compare.")
    ] = 0,
) -> None:
    """Compute decisions and features again from the log and compare them bit for bit."""
    from tidegate.cli.progress import stepping
    from tidegate.cli.verified import show

    shop = _open(folder)
    with stepping("computing again") as progress:
        found = shop.verify(first=first, progress=progress)
    if not show(found):
        raise typer.Exit(AMISS)


app.command()(backtest)
add_versions(app)
app.add_typer(lists, name="list")
app.command()(top)


@letters.callback()
def deadletters(folder: Folder, context: typer.Context) -> None:
    """Count, show or resend input that could not become an event."""
    context.obj = folder
    if context.invoked_subcommand is None:
        _summary(_open(folder))


@letters.command("show")
def show_letters(
    context: typer.Context,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, oldest first.")] = 20,
    clear: Clear = False,  # noqa: FBT002 - an option by name
) -> None:
    """Show dead letters with id, reason, message and bytes."""
    from tidegate.cli.rows import print_letter

    shop = _open(context.obj)
    found = shop.dead_letters(clear=clear).to_pylist()
    _tell_hidden(shop, clear=clear)
    chosen = [row for row in found if reason in (None, row["reason"])]
    for row in chosen[:limit]:
        print_letter(row)
    if len(chosen) > limit:
        typer.echo(f"… and {len(chosen) - limit} more: --limit {len(chosen)} shows them")


@letters.command()
def resend(
    context: typer.Context,
    ids: Annotated[
        list[int] | None, typer.Option("--id", help="Only these, by id.", show_default=False)
    ] = None,
    reason: Reason = None,
) -> None:
    """Send dead letters again, for instance after the project was mended."""
    shop = _open(context.obj)
    taken = shop.resend(ids=ids or None, reason=reason)
    _tell(taken, "sent again")
    if taken.records and taken.beside:
        _remark(f"{taken.beside} decided, by the project as it was when that began")


@app.command("warm-up")
def warm_up() -> None:
    """Compile the kernels, once for each installation."""
    from tidegate.cli.warmup import compile_kernels

    compile_kernels()


def _tell_hidden(shop: Workspace, *, clear: bool) -> None:
    if shop.project.stream.schema.pii and not clear:
        _remark("columns marked pii are shown as pseudonyms; --clear shows their values")


def _open(folder: Path) -> Workspace:
    import tidegate

    return tidegate.open(folder)


def _summary(shop: Workspace) -> None:
    from tidegate.cli.rows import print_table

    found = shop.dead_letters().group_by("reason").aggregate([([], "count_all")]).to_pylist()
    if not found:
        typer.echo("no dead letters")
        return
    rows = sorted(([r["reason"], r["count_all"]] for r in found), key=lambda r: (-r[1], r[0]))
    print_table(["reason", "dead letters"], rows)


def _tell(taken: Taken, what: str) -> None:
    """Say what became of records; fail if that is not known yet."""
    counts = f"{taken.events} events, {taken.dead_letters} dead letters"
    typer.echo(f"{taken.records} records {what}: {counts}, {taken.duplicates} duplicates")
    if not taken.finished:
        _remark("they are safe in the log, but not all in the tables: is the server well?")
        raise typer.Exit(FAILED)


def _remark(text: str) -> None:
    from tidegate.cli.terminal import remark

    remark(text)


def main() -> None:
    """Run the command line; what a user can cause ends in a line and an exit code."""
    memory.spare()
    try:
        _run()
    except ProjectError as error:
        count = len(error.problems)
        _remark(f"{error}\n\n{count} mistake{'' if count == 1 else 's'}")
        sys.exit(AMISS)
    except InputError as error:
        _remark(f"error: {error}")
        sys.exit(AMISS)
    except TidegateError as error:
        _remark(f"error: {error}")
        sys.exit(FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _remark(f"error: {where}{error.strerror or error}")
        sys.exit(FAILED)


def _run() -> None:
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone; else Python would complain about it at the very end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
