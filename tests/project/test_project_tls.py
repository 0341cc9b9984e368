"""Certificates that `tidegate.toml` names are looked at when the project is loaded."""

from pathlib import Path

import pytest
import trustme

from tidegate.errors import ProjectError
from tidegate.project import Project, load

MINIMAL = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
"""
BOTH = '[service]\ntls_certificate = "tls/server.pem"\ntls_key = "tls/server.key"\n'


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a certificate and its key."""
    made = trustme.CA().issue_cert("shop.example")
    (tmp_path / "tls").mkdir()
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "tls/server.pem"))
    made.private_key_pem.write_to_path(str(tmp_path / "tls/server.key"))
    (tmp_path / "tidegate.toml").write_text(MINIMAL + BOTH)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ProjectError) as caught:
        load(folder)
    return str(caught.value)


def test_a_certificate_with_its_key_is_taken(shop: Path) -> None:
    service = load(shop).service
    assert (service.tls_certificate, service.tls_key) == ("tls/server.pem", "tls/server.key")


def test_a_key_of_another_certificate_is_refused(shop: Path) -> None:
    other = trustme.CA().issue_cert("shop.example").private_key_pem
    other.write_to_path(str(shop / "tls/server.key"))
    said = refused(shop)
    assert said.startswith("tidegate.toml:9:19: `tls/server.pem` and `tls/server.key` cannot be")
    assert "MISMATCH" in said


def test_what_is_no_certificate_is_refused(shop: Path) -> None:
    (shop / "tls/server.pem").write_text("nothing")
    assert "cannot be used" in refused(shop)


@pytest.mark.parametrize(("gone", "place"), [("server.pem", "9:19"), ("server.key", "10:11")])
def test_a_file_that_is_not_there_is_said_at_its_name(shop: Path, gone: str, place: str) -> None:
    (shop / "tls" / gone).unlink()
    said = refused(shop)
    assert said.startswith(f"tidegate.toml:{place}: `tls/{gone}` cannot be read: no such file")


@pytest.mark.parametrize("only", ["tls_certificate", "tls_key"])
def test_one_without_the_other_is_refused(only: str) -> None:
    settings = MINIMAL + f'[service]\n{only} = "a.pem"\n'
    with pytest.raises(ProjectError, match=f"9:1: `{only}` needs `tls_"):
        Project.from_files({"tidegate.toml": settings}, root=Path())


def test_a_project_read_back_from_the_log_needs_no_certificate() -> None:
    project = Project.from_files({"tidegate.toml": MINIMAL + BOTH}, root=Path("elsewhere"))
    assert project.service.tls_key == "tls/server.key"
