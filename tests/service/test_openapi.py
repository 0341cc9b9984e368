"""What the OpenAPI document says is held against the running server, by a fuzzer of documents."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from .process import ServerProcess

# A document cannot say what SQL is, which lists there are, or what makes a project, so that a body
# which fits its schema may be refused all the same. All other checks hold.
_LEFT_OUT = "positive_data_acceptance"


@pytest.mark.timeout(1_200)
def test_the_document_and_the_server_say_the_same(server: ServerProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    options = ["--exclude-checks", _LEFT_OUT, "--max-examples", "20", "--no-color"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert httpx.get(f"{server.url}/healthz").status_code == 200
