"""Versions of a project: published, compared, taken back, tried in the shadow."""

from tidegate.versions.desk import Publication, Versions
from tidegate.versions.history import Version

__all__ = ["Publication", "Version", "Versions"]
