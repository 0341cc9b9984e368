"""What is refused before it is published: what does not compile, or cannot follow what runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import InputError, Problem, ProjectError, RequestError
from tidegate.program import Program
from tidegate.project.document import Document
from tidegate.project.files import RULES_FILE, SETTINGS_FILE
from tidegate.project.places import Path as Place
from tidegate.project.project import Project
from tidegate.project.values import is_inside
from tidegate.recovery import refuse_other_dedupe
from tidegate.warehouse.layout import layouts
from tidegate.warehouse.opening import refuse_conflicts

FILES_MAX = 256
FILE_CHARACTERS_MAX = 1 << 20
_TABLE_AND_COLUMN = re.compile(r"table `(\w+)`(?:: column `([^`]+)`)?")


def compiled(files: Mapping[str, str], *, root: Path) -> Program:
    """The program of the files of a project.

    Raises: RequestError for files that a project does not have; ProjectError with all mistakes.
    """
    if len(files) > FILES_MAX:
        raise RequestError(f"a project has at most {FILES_MAX} files", code="too_many_files")
    for name, text in files.items():
        if name not in (SETTINGS_FILE, RULES_FILE) and not (
            name.endswith(".sql") and is_inside(name)
        ):
            message = f"`{name[:100]}` is no file of a project: there are {SETTINGS_FILE}, "
            raise RequestError(f"{message}{RULES_FILE} and .sql files", code="unknown_file")
        if len(text) > FILE_CHARACTERS_MAX:
            raise RequestError(f"`{name}` is longer than 1 MiB", code="file_too_large")
    if SETTINGS_FILE not in files:
        raise RequestError(f"`{SETTINGS_FILE}` is not among the files", code="no_settings")
    return Program.compile(Project.from_files(files, root=root))


def refuse_misfit(candidate: Program, running: Program | None, tables: Path) -> None:
    """Check that a candidate can take over from what runs, and that the tables take its rows.

    Raises: ProjectError with the place of what conflicts.
    """
    try:
        if running is not None:
            refuse_other_dedupe(running, candidate)
    except InputError as error:
        key = "id" if "`id`" in str(error) else "dedupe_horizon"
        raise _placed(candidate, ("stream", key), str(error)) from error
    try:
        windows = candidate.window_schemas()
        refuse_conflicts(tables, layouts(candidate.schema, windows, candidate.feature_schema))
    except InputError as error:
        raise _placed(candidate, _place_of(str(error), candidate), str(error)) from error


def _placed(candidate: Program, place: Place, message: str) -> ProjectError:
    document = Document(candidate.files[SETTINGS_FILE], file=SETTINGS_FILE)
    problem: Problem = document.problem(place, message)
    return ProjectError([problem])


def _place_of(message: str, candidate: Program) -> Place:
    """Where a table's column is declared, as far as `tidegate.toml` tells."""
    found = _TABLE_AND_COLUMN.search(message)
    table, column = found.groups() if found else (None, None)
    names = [w.name for w in candidate.project.windows]
    if table in names:
        return ("windows", names.index(str(table)), "sql")
    if table == "features":
        return ("features", "sql")
    return ("stream", "columns", *([column] if column else []))
