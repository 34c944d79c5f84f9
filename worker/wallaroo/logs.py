"""Structured logs: one line an event, as key=value, on standard error."""

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


class _Lenient:
    """Standard error; that its disk is full keeps nobody from working, or from saying so."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(**context: object) -> None:
    """Log to standard error; `context` is part of every line."""
    structlog.configure(
        processors=[
            lambda _logger, _method, event: {**context, **event},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lenient())),
        cache_logger_on_first_use=False,
    )
