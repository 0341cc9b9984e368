"""The shop window: what `import tidegate` offers."""

import subprocess
import sys

import tidegate


def test_all_is_sorted_and_there() -> None:
    assert sorted(tidegate.__all__) == tidegate.__all__
    for name in tidegate.__all__:
        assert getattr(tidegate, name) is not None


def test_importing_costs_nothing_until_something_is_asked_for() -> None:
    code = "import sys, tidegate; sys.exit(len({'numba', 'polars', 'duckdb'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
