"""What the README shows runs as it is printed, but for the port."""

import gzip
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from end_to_end.shop import Server, free_port
from tidegate.project.examples import new
from waiting import until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ORDERS = "id,event_type,ts,store_id,discount\no1,sale_event,2023-06-06T20:24:45Z,7,60\n"


def blocks(language: str, *, having: str = "") -> list[str]:
    found = [text for kind, text in BLOCKS if kind == language and having in text]
    assert found, f"the README shows no {language} with {having}"
    return found


def commands(block: str) -> list[str]:
    """The commands of a block without their remarks."""
    return [line.partition("  #")[0].strip() for line in block.splitlines() if line.strip()]


class Reader:
    """Somebody who types what the README says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder / "shop", port=free_port())

    def type(self, text: str) -> str:
        text = text.replace(".venv/bin/tidegate", "tidegate").replace("8700", str(self.server.port))
        text = re.sub(r"^tidegate ", f"{sys.executable} -m tidegate ", text)
        done = subprocess.run(
            text, shell=True, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The first commands typed, the server running."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    make, run = commands(blocks("", having="tidegate new")[0])
    assert run.endswith("tidegate run shop")
    reader.type(make)
    reader.server.start()
    yield reader
    reader.server.abandon()


def test_every_block_is_of_a_kind_that_is_tried_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"", "toml", "python"}
    assert len(blocks("")) == 5
    assert len(blocks("python")) == 1


def test_what_make_is_said_to_make_is_there() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [line.split()[1] for line in commands(blocks("", having="make demo")[0])]
    assert set(named) <= set(targets)


def test_the_settings_and_the_rule_make_a_project_without_mistakes(tmp_path: Path) -> None:
    new(tmp_path / "model", example="store")
    settings, rules = blocks("toml", having="[stream]"), blocks("toml", having="[[rule]]")
    (tmp_path / "tidegate.toml").write_text("".join(settings))
    (tmp_path / "rules.toml").write_text("".join(rules))
    shutil.copy(tmp_path / "model" / "suspicious_orders.sql", tmp_path)
    command = [sys.executable, "-m", "tidegate", "check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rule_is_the_examples_own(tmp_path: Path) -> None:
    new(tmp_path / "model", example="store")
    shown = tomllib.loads(blocks("toml", having="[[rule]]")[0])["rule"][0]
    rules = tomllib.loads((tmp_path / "model" / "rules.toml").read_text())["rule"]
    assert shown in rules


def test_an_event_sent_by_curl_is_decided_as_the_text_says(
    reader: Reader, missing: Callable[[str], NoReturn]
) -> None:
    if shutil.which("curl") is None:
        missing("curl is not installed")
    send, ask = re.split(r"\n(?=curl)", blocks("", having="curl")[0])
    assert '"review"' in reader.type(send)
    until(lambda: '"review"' in reader.type(ask))


def test_a_change_is_tried_published_and_taken_back(reader: Reader) -> None:
    rules = reader.folder / "shop" / "rules.toml"
    before = rules.read_text()
    changed = before.replace("discount > 50", "discount > 40")
    assert changed != before
    (reader.folder / "candidate.toml").write_text(changed)
    backtest, *others = commands(blocks("", having="tidegate backtest")[0])
    reader.type(backtest)
    assert "</html>" in (reader.folder / "change.html").read_text()
    rules.write_text(changed)
    for line in others:
        reader.type(line)
    versions = reader.type("tidegate versions shop")
    assert [word in versions for word in ("shadow", "publish", "rollback")] == [True] * 3
    rules.write_text(before)


def test_the_rest_of_the_command_line_beside_the_server(reader: Reader) -> None:
    with gzip.open(reader.folder / "orders.csv.gz", "wt") as file:
        file.write(ORDERS)
    said = [reader.type(line) for line in commands(blocks("", having="tidegate reconcile")[0])]
    assert "no mistakes" in said[0]
    assert any(text.startswith("1 records taken: 1 events") for text in said)
    assert any("nothing is missing" in text for text in said)


def test_the_python_runs(reader: Reader) -> None:
    reader.type(f"{sys.executable} - <<'END'\n{blocks('python')[0]}END\n")
