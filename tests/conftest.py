"""What all tests share."""

import os
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# CI machines are shared and slow at times: a deadline would measure them, not the code.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

# So that a failing assert of the public suite shows its values as in any test.
pytest.register_assert_rewrite("tidegate.testing.eventlog")


@pytest.fixture
def missing() -> Callable[[str], NoReturn]:
    """Skips on a laptop, fails in CI: there, everything that a test needs must be installed."""

    def say(reason: str) -> NoReturn:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return say
