"""What a user sees: each folder of `golden` is a project with mistakes and how they are shown."""

from pathlib import Path

import pytest

from tidegate.errors import Problem, ProjectError
from tidegate.project import Project, load

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(p.name for p in GOLDEN.iterdir())


def problems_of(files: dict[str, str]) -> tuple[Problem, ...]:
    with pytest.raises(ProjectError) as caught:
        Project.from_files(files, root=Path())
    return caught.value.problems


@pytest.mark.parametrize("name", CASES)
def test_problems_are_shown_as_in_the_golden_file(name: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load(GOLDEN / name)
    assert f"{caught.value}\n" == (GOLDEN / name / "expected.txt").read_text()


@pytest.mark.parametrize("name", CASES)
def test_each_problem_shows_the_line_it_points_at(name: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load(GOLDEN / name)
    for problem in caught.value.problems:
        lines = (GOLDEN / name / problem.file).read_text().split("\n")
        assert problem.text in ("", lines[problem.line - 1])
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


@pytest.mark.parametrize("name", CASES)
def test_messages_begin_in_lower_case_and_end_without_a_full_stop(name: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load(GOLDEN / name)
    for problem in caught.value.problems:
        assert not problem.message[0].isupper()
        assert not problem.message.endswith(".")


def test_secrets_are_never_shown() -> None:
    sink = 'sinks.a = {url = "s3://me:hunter2@b", formt = 1, options = {secret = "hunter2"}}'
    shown = "\n".join(str(p) for p in problems_of({"tidegate.toml": sink}))
    assert "may be a secret" in shown
    assert "must not hold a password" in shown
    assert "unknown setting `formt`" in shown
    assert "hunter2" not in shown


def test_a_folder_without_settings_is_told_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(
        ProjectError, match=r"tidegate.toml:1:1: no such file in .*\n.*tidegate new"
    ):
        load(tmp_path)


def test_a_byte_that_is_not_utf8_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_bytes("# é\n# ü\xff".encode("latin-1"))
    with pytest.raises(ProjectError) as caught:
        load(tmp_path)
    [problem] = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (1, 3, "not UTF-8: byte 0xe9")


def test_a_missing_query_file_is_told_with_the_nearest_known() -> None:
    files = {"tidegate.toml": '[[windows]]\nname = "a"\nsql = "sals.sql"', "sales.sql": ""}
    [problem] = [p for p in problems_of(files) if "sals" in p.message]
    assert problem.hint == "did you mean `sales.sql`?"


def test_a_query_file_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.sql").write_text("SELECT 1")
    inside = tmp_path / "project"
    inside.mkdir()
    (inside / "a.sql").symlink_to(tmp_path / "secret.sql")
    (inside / "tidegate.toml").write_text('[[windows]]\nname = "a"\nsql = "a.sql"')
    with pytest.raises(ProjectError, match=r"a\.sql:1:1: cannot be read: leads out of the project"):
        load(inside)


def test_a_folder_in_place_of_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").mkdir()
    with pytest.raises(ProjectError, match="cannot be read: is a directory"):
        load(tmp_path)


def test_a_huge_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ProjectError, match="is larger than 1 MiB"):
        load(tmp_path)
