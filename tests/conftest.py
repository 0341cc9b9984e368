"""What all tests share."""

import os

import pytest
from hypothesis import settings

# CI machines are shared and slow at times: a deadline would measure them, not the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

# So that a failing assert of the public suite shows its values as in any test.
pytest.register_assert_rewrite("tidegate.testing.eventlog")


def missing(reason: str) -> None:
    """Skip on a laptop, fail in CI: there, everything that a test needs must be installed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
