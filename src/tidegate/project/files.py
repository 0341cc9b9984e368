"""The files that make a project, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tidegate.errors import Problem, ProjectError
from tidegate.project.document import Document
from tidegate.project.reader import Reader
from tidegate.project.values import is_inside

SETTINGS_FILE = "tidegate.toml"
RULES_FILE = "rules.toml"
_FILE_BYTES_MAX = 1 << 20


def gather(root: Path) -> tuple[dict[str, str], list[Problem]]:
    """The text of each file of the project in `root`, by name, and what could not be read.

    A file that could not be read has the empty text, so that nothing takes it for missing.
    """
    files: dict[str, str] = {}
    problems: list[Problem] = []
    for name in (SETTINGS_FILE, RULES_FILE):
        _take(root, name, files, problems)
    if SETTINGS_FILE not in files:
        hint = "`tidegate new FOLDER --example store` makes a project to begin with"
        problems.append(Problem(SETTINGS_FILE, 1, 1, f"no such file in `{root}`", hint))
    for name in _query_files(files.get(SETTINGS_FILE, "")):
        _take(root, name, files, problems)
    return files, problems


def read(path: Path) -> str:
    """The text of a file that need not belong to a project, named in messages as it was given.

    Raises: ProjectError.
    """
    name, files, problems = str(path), dict[str, str](), list[Problem]()
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise ProjectError([Problem(name, 1, 1, f"cannot be read: {_why(error)}")]) from error
    if len(content) > _FILE_BYTES_MAX:
        raise ProjectError([Problem(name, 1, 1, "is larger than 1 MiB")])
    _decode(name, content, files, problems)
    if problems:
        raise ProjectError(problems)
    return files[name]


def _take(root: Path, name: str, files: dict[str, str], problems: list[Problem]) -> None:
    """Read a file of the project into `files`; one that is not there is left to later checks."""
    path = root / name
    files[name] = ""
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise OSError("leads out of the project's folder")
        content = path.read_bytes()
    except FileNotFoundError:
        del files[name]
        return
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        problems.append(Problem(name, 1, 1, f"cannot be read: {_why(error)}"))
        return
    if len(content) > _FILE_BYTES_MAX:
        problems.append(Problem(name, 1, 1, "is larger than 1 MiB"))
        return
    _decode(name, content, files, problems)


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _decode(name: str, content: bytes, files: dict[str, str], problems: list[Problem]) -> None:
    try:
        files[name] = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        text = content.split(b"\n")[line - 1].decode("utf-8", "replace").rstrip("\r")
        message = f"not UTF-8: byte 0x{content[error.start]:02x}"
        problems.append(Problem(name, line, column, message, "save the file as UTF-8", text))


def _query_files(settings: str) -> Iterator[str]:
    """The SQL files that `tidegate.toml` names; those named wrongly are left to later checks."""
    try:
        reader = Reader(Document(settings, file=SETTINGS_FILE), {})
    except ProjectError:
        return
    for path in (("features",), *reader.elements_quietly(("windows",))):
        name = reader.value((*path, "sql"))
        if isinstance(name, str) and name.endswith(".sql") and is_inside(name):
            yield name
