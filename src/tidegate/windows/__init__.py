"""Window queries: a row per group and window of event time, emitted when the window closes."""

from tidegate.windows.query import WindowQuery, compile_query
from tidegate.windows.state import Closed, WindowState

__all__ = ["Closed", "WindowQuery", "WindowState", "compile_query"]
