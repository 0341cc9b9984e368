"""Versions of the project over HTTP: published, listed, taken back."""
