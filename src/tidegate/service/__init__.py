"""The HTTP door: requests in, answers out. Translation only; what is decided is decided behind it.

One folder for each resource. `create_app` builds the application on an open pipeline, `serve` runs
a project as a process.
"""

from tidegate.service.app import create_app
from tidegate.service.server import serve

__all__ = ["create_app", "serve"]
