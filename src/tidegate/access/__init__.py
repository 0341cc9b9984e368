"""Who may do what: API keys, their scopes, and columns that not everybody may read."""

from tidegate.access.caller import LOCAL, NOBODY, SCOPES, Caller
from tidegate.access.keys import ApiKey, Change, Keys
from tidegate.access.verifier import Rejected, Verifier

__all__ = [
    "LOCAL",
    "NOBODY",
    "SCOPES",
    "ApiKey",
    "Caller",
    "Change",
    "Keys",
    "Rejected",
    "Verifier",
]
