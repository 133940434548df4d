"""How a server writes its log: one JSON object a line on stderr, or something kinder where a person looks."""

from __future__ import annotations

import logging
import sys
from traceback import format_exception

import structlog


class _Forwarding(logging.Handler):
    """Brings what libraries warn of into the same log: a line of another form could not be read with it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            more = {"exception": "".join(format_exception(*record.exc_info))} if record.exc_info else {}
            structlog.get_logger().log(record.levelno, record.getMessage(), by=record.name, **more)
        except Exception:
            self.handleError(record)


def configure_logs() -> None:
    """Send structlog to stderr, and what libraries warn of. Once, before anything is logged."""
    if not any(isinstance(each, _Forwarding) for each in logging.root.handlers):
        logging.root.addHandler(_Forwarding(logging.WARNING))
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
