"""How a server writes its log: one JSON object a line on stderr, or something kinder where a person looks."""

from __future__ import annotations

import sys

import structlog


def configure_logs() -> None:
    """Send structlog to stderr. Once, before anything is logged."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer()
            if sys.stderr.isatty()
            else structlog.processors.JSONRenderer(sort_keys=True),
        ],
        # The stderr of the moment, and so not cached: whoever replaces it, as test runners do, is followed.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
