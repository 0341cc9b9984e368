"""How the process writes its logs: one line each on stderr, key=value or JSON.

Tracebacks come without local variables, and nothing here is given events: logs can be shown.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


def configure_logs(*, as_json: bool = False) -> None:
    """Send structlog's and the standard library's messages to stderr in one format."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _renderer(as_json=as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Looked up at each line: tests and supervisors may put another stream in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _configure_standard(shared, as_json=as_json)


def _renderer(*, as_json: bool) -> Processor:
    if as_json:
        return structlog.processors.JSONRenderer()
    return structlog.processors.LogfmtRenderer(
        key_order=["timestamp", "level", "event"], bool_as_flag=False
    )


def _configure_standard(shared: list[Processor], *, as_json: bool) -> None:
    """What libraries log by themselves, from warnings on, in the same format."""
    handler = logging.StreamHandler(sys.stderr)
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[clean, _renderer(as_json=as_json)]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # What the server says of bad requests is counted and answered; a line each could fill disks.
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
