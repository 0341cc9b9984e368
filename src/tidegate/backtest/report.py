"""A report of a backtest, written to a file."""

from __future__ import annotations

from pathlib import Path

from tidegate.backtest import figures
from tidegate.backtest.page import page
from tidegate.backtest.result import Backtested
from tidegate.errors import RequestError

ENDINGS = (".html", ".png")


def check(path: Path) -> None:
    """Look ahead whether a report can be written. Raises: as `write`, but for the disk."""
    if path.suffix.lower() not in ENDINGS:
        message = f"cannot write {path}: a report's name ends in {' or '.join(ENDINGS)}"
        raise RequestError(message, code="no_output")
    figures.require()


def write(found: Backtested, path: Path) -> None:
    """Write a page (`.html`) or a slide (`.png`); the file is there whole or not at all.

    Raises: InputError if the extra `report` is not installed; RequestError if the file cannot be
    written or has another ending.
    """
    check(path)
    if path.suffix.lower() == ".png":
        content = figures.slide_png(found, title=title(found))
    else:
        charts = figures.charts_svg(found)
        content = page(found, title=title(found), charts=charts).encode()
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}", code="no_output") from error
    finally:
        draft.unlink(missing_ok=True)


def title(found: Backtested) -> str:
    """What was compared."""
    return f"Backtest of {found.candidate}"
