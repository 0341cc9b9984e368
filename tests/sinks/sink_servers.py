"""A real S3 server for the tests of sinks: fixtures for the modules that import them."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator

import fsspec
import pytest
from sink_rows import NewBucket, require_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a server that speaks S3, on loopback."""
    require_s3()
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def new_bucket(s3_server: str) -> NewBucket:
    """A function that makes a new bucket and returns its name."""
    s3 = fsspec.filesystem(
        "s3", key="a", secret="b", endpoint_url=s3_server, skip_instance_cache=True
    )

    def new() -> str:
        name = f"bucket-{uuid.uuid4()}"
        s3.mkdir(name)
        return name

    return new


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
