"""Examples: copied whole, without data, and shipped in the wheel."""

import tomllib
from pathlib import Path

import pytest

from tidegate.errors import RequestError
from tidegate.project import EXAMPLES, load, new, version

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_copied_example_loads_and_has_the_same_version(example: str, tmp_path: Path) -> None:
    made = new(tmp_path / "deep" / "shop", example=example)
    assert tmp_path / "deep" / "shop" / "tidegate.toml" in made
    assert all(path.is_file() for path in made)
    original = load(ROOT / "examples" / example)
    assert version(load(tmp_path / "deep" / "shop")) == version(original)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert len(new(tmp_path, example="store")) == 5


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RequestError, match="is not an empty folder") as caught:
        new(tmp_path, example="store")
    assert caught.value.code == "folder_not_empty"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RequestError):
        new(tmp_path / "mine", example="store")


def test_an_unknown_example_is_told_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean `store`"):
        new(tmp_path / "shop", example="stor")
    assert not (tmp_path / "shop").exists()


def test_data_is_never_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "examples"
    new(home / "store", example="store")
    (home / "store" / "data").mkdir()
    (home / "store" / "data" / "x.sql").write_text("SELECT 1")
    monkeypatch.setattr("tidegate.project.examples._home", lambda: home)
    made = new(tmp_path / "shop", example="store")
    assert len(made) == 5
    assert not (tmp_path / "shop" / "data").exists()


def test_the_wheel_has_every_file_of_every_example() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    shipped = built["targets"]["wheel"]["force-include"]
    for example in EXAMPLES:
        folder = ROOT / "examples" / example
        files = [p for p in folder.rglob("*") if p.suffix in (".toml", ".sql", ".md")]
        names = {str(p.relative_to(ROOT)) for p in files if "data" not in p.parts}
        assert names == {n for n in shipped if n.startswith(f"examples/{example}/")}
    assert all(inside == f"tidegate/{name}" for name, inside in shipped.items())
