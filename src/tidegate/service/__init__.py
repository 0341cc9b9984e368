"""The HTTP door: requests in, answers out. Translation only; what is decided is decided behind it.

One folder for each resource. `create_app` builds the application on an open pipeline, `serve` runs
a project as a process.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.service.app import create_app
    from tidegate.service.server import serve

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> object:
    """What takes two seconds to import is imported when asked for: a porter needs none of it."""
    if name == "create_app":
        from tidegate.service.app import create_app

        return create_app
    if name == "serve":
        from tidegate.service.server import serve

        return serve
    raise AttributeError(f"module `tidegate.service` has no attribute `{name}`")
