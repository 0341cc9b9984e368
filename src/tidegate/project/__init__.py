"""What the user wrote: `tidegate.toml`, `rules.toml` and SQL files, checked."""

from tidegate.project.examples import EXAMPLES, new
from tidegate.project.project import Project, load, version
from tidegate.project.settings import (
    Access,
    Features,
    Log,
    Rule,
    Service,
    Stream,
    Warehouse,
    Window,
)
from tidegate.project.sinks import ObjectsSink, Sink

__all__ = [
    "EXAMPLES",
    "Access",
    "Features",
    "Log",
    "ObjectsSink",
    "Project",
    "Rule",
    "Service",
    "Sink",
    "Stream",
    "Warehouse",
    "Window",
    "load",
    "new",
    "version",
]
