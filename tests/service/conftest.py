"""Real server processes on free ports."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .process import FAULTS, ServerProcess, Start, end, launch


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of a test's own; all are ended with it."""
    started: list[ServerProcess] = []

    def begin(**how: object) -> ServerProcess:
        folder = tmp_path / f"shop{len(started)}"
        folder.mkdir()
        server = launch(folder, **how)  # type: ignore[arg-type]
        started.append(server)
        return server

    yield begin
    for server in started:
        end(server)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only talk to it."""
    running = launch(
        tmp_path_factory.mktemp("shop"),
        settings="producer_endpoint = true\n",
    )
    yield running
    end(running)


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that fails on records that ask for it, and without the producer."""
    settings = 'request_timeout = "4 seconds"\n'
    running = launch(tmp_path_factory.mktemp("faulty"), settings=settings, before=FAULTS)
    yield running
    end(running)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
