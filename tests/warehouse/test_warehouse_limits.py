"""A full disk or a read-only folder is a passing fault: it is said, and later writes go through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("warehouse_limits.py")


def in_namespace(harm: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script where it may mount; needs unprivileged user namespaces, or root."""
    enter = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], check=False).returncode:
        reason = "user namespaces (`unshare`) are needed to fill a small disk"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return subprocess.run(
        [*enter, sys.executable, SCRIPT, harm, folder], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("harm", "said"), [("full", "the disk is full"), ("read-only", "Read-only|read-only")]
)
def test_writes_are_refused_while_it_lasts_and_go_through_afterwards(
    tmp_path: Path, harm: str, said: str
) -> None:
    done = in_namespace(harm, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout)
