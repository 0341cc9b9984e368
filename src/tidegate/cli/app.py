"""The commands of `tidegate`.

What a command needs is imported inside it, so that `tidegate check` does not wait for compiled
kernels, nor `tidegate --help` for anything.
"""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from tidegate.errors import InputError, ProjectError, TidegateError

if TYPE_CHECKING:
    from tidegate.workspace import Workspace

app = typer.Typer(
    help="Fraud detection on event streams, in SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would show local variables, events among them
)
letters = typer.Typer(help="Input that could not become an event, kept whole with the reason.")
app.add_typer(letters, name="deadletters", invoke_without_command=True)

errors = Console(stderr=True, highlight=False, soft_wrap=True)

Folder = Annotated[Path, typer.Argument(help="The project's folder.", show_default=False)]


class Kind(StrEnum):
    """What can be generated."""

    STORE = "store"


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


FormatOption = Annotated[Format, typer.Option("--format", help="How the rows are written.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file to write to; else standard output.")
]


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="A folder to make.", show_default=False)],
    example: Annotated[str, typer.Option(help="The example to begin with.")] = "store",
) -> None:
    """Make a project folder to edit."""
    from tidegate.project.examples import new

    for path in new(folder, example=example):
        typer.echo(path)
    typer.echo(f"\nnext: tidegate check {folder}; tidegate run {folder}")


@app.command()
def check(folder: Folder) -> None:
    """Show every mistake with file:line:column, the line, a caret and a hint."""
    from tidegate.program import Program
    from tidegate.project.project import load

    program = Program.compile(load(folder))
    rules, windows, sinks = program.rules.rules, program.windows, program.project.sinks
    typer.echo(
        f"{folder}: version {program.version}, {len(program.schema)} columns, "
        f"{len(rules)} rules, {len(windows)} window queries, {len(sinks)} sinks; no mistakes"
    )


@app.command()
def run(
    folder: Folder,
    host: Annotated[str | None, typer.Option(help="Instead of `service.host`.")] = None,
    port: Annotated[int | None, typer.Option(help="Instead of `service.port`.")] = None,
) -> None:
    """Run the project: server, engine, tables and sinks in one process."""
    from tidegate.project.project import load
    from tidegate.service.server import serve

    project = load(folder)
    service = project.service
    raise typer.Exit(
        serve(project, host=host or service.host, port=service.port if port is None else port)
    )


@app.command()
def generate(
    kind: Annotated[Kind, typer.Argument(help="What to make.", show_default=False)],  # noqa: ARG001 - one kind so far
    count: Annotated[int, typer.Option(min=1, help="How many events.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 1,
    to: Annotated[str, typer.Option(help="A URL, a file, or - for standard output.")] = "-",
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
    """Make events as a stream would bring them, to a server, a file or standard output."""
    from tidegate.cli.generate import Made, send

    made = Made(
        count=count,
        seed=seed,
        rate_per_second=rate,
        start=start,
        missing_store_share=missing,
        unreadable_share=unreadable,
        duplicate_share=repeated,
    )
    send(made, to=to, console=errors)


@app.command()
def ingest(
    folder: Folder,
    files: Annotated[
        list[Path], typer.Argument(help="NDJSON, JSON, CSV, Parquet, or gzip of them.")
    ],
) -> None:
    """Take the records of files; the project's running server decides on them, else this does."""
    from tidegate.cli.progress import reading

    with reading(files, console=errors) as progress:
        taken = _open(folder).ingest(files, progress=progress)
    typer.echo(f"{taken.records} records taken")
    if not taken.finished:
        _fail("they are in the log, but not yet in the tables: is the server running well?")


@app.command()
def query(
    folder: Folder,
    sql: Annotated[str, typer.Argument(help="One SELECT in DuckDB's SQL.", show_default=False)],
    format: FormatOption = Format.TABLE,  # noqa: A002 - named as on the command line
    output: Output = None,
) -> None:
    """Ask the tables: events, decisions, dead_letters, duplicates, late_rows, window queries."""
    _show(_open(folder).query(sql), format, output)


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
    from tidegate.cli.reconciled import show

    if not show(_open(folder).reconcile(), by_hour=by_hour):
        raise typer.Exit(1)


@letters.callback()
def deadletters(folder: Folder, context: typer.Context) -> None:
    """Input that could not become an event, kept whole with the reason."""
    context.obj = folder
    if context.invoked_subcommand is None:
        _summary(_open(folder))


@letters.command("show")
def show_letters(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option(help="Only those of this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, oldest first.")] = 20,
) -> None:
    """Show dead letters with id, reason, message and bytes."""
    from tidegate.cli.rows import print_letter

    found = _open(context.obj).dead_letters().to_pylist()
    chosen = [row for row in found if reason in (None, row["reason"])]
    for row in chosen[:limit]:
        print_letter(row)
    if len(chosen) > limit:
        typer.echo(f"… and {len(chosen) - limit} more: --limit {len(chosen)} shows them")


@letters.command()
def resend(
    context: typer.Context,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only these, by id.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only those of this reason.")] = None,
) -> None:
    """Send dead letters again, for instance after the project was mended."""
    shop = _open(context.obj)
    taken = shop.resend(ids=ids, reason=reason)
    typer.echo(f"{taken.records} records sent again; {shop.dead_letters().num_rows} dead letters")


@app.command("warm-up")
def warm_up() -> None:
    """Compile the kernels, once for each installation."""
    from tidegate.cli.warmup import compile_kernels

    compile_kernels(console=errors)


def _open(folder: Path) -> Workspace:
    import tidegate

    return tidegate.open(folder)


def _summary(shop: Workspace) -> None:
    from tidegate.cli.rows import print_table

    found = shop.dead_letters().group_by("reason").aggregate([([], "count_all")])
    rows = sorted(([r["reason"], r["count_all"]] for r in found.to_pylist()), key=lambda r: -r[1])
    print_table(["reason", "dead letters"], rows)


def _show(result: object, format: Format, output: Path | None) -> None:  # noqa: A002 - as above
    from tidegate.cli.rows import write

    write(result, format.value, output)  # type: ignore[arg-type]


def _fail(message: str) -> NoReturn:
    errors.print(message, style="red", markup=False)
    raise typer.Exit(1)


def main() -> None:
    """Run the command line; mistakes of the user end with exit code 1 and no traceback."""
    try:
        app()
    except ProjectError as error:
        errors.print(str(error), markup=False)
        count = len(error.problems)
        errors.print(f"\n{count} mistake{'' if count == 1 else 's'}", style="red")
        sys.exit(1)
    except InputError as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(1)
    except TidegateError as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(2)
