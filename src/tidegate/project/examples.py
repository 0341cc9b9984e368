"""Example projects that ship with Tidegate."""

from __future__ import annotations

import shutil
from pathlib import Path

from tidegate.errors import RequestError
from tidegate.project.values import suggestion

_PACKAGE = Path(__file__).resolve().parent.parent


def _home() -> Path:
    """Where the examples lie: inside an installed package, or beside `src` in a checkout."""
    installed = _PACKAGE / "examples"
    return installed if installed.is_dir() else _PACKAGE.parent.parent / "examples"


EXAMPLES = ("cards", "store")


def new(target: Path, *, example: str) -> list[Path]:
    """Copy an example project to the folder `target` and return the files made, sorted.

    Only the project's own files are copied, never data.
    Raises: RequestError (`unknown_example`, `folder_not_empty`).
    """
    if example not in EXAMPLES:
        hint = suggestion(example, EXAMPLES)
        raise RequestError(f"no example `{example}`; {hint}", code="unknown_example")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"`{target}` is not an empty folder; name a new one"
        raise RequestError(message, code="folder_not_empty")
    source = _home() / example
    made = [_copy(path, target / path.relative_to(source)) for path in _files(source)]
    return sorted(made)


def _files(source: Path) -> list[Path]:
    """The files of a project: those that end as a project's files do, but for its data folder."""
    found = [p for p in source.rglob("*") if p.suffix in (".toml", ".sql", ".md")]
    return [p for p in found if p.relative_to(source).parts[0] != "data"]


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
