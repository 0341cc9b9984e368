import pytest

# So that a failing assert of the public suite shows its values as in any test.
pytest.register_assert_rewrite("tidegate.testing.eventlog")
