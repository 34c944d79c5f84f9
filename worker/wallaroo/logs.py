"""Structured logs: one line an event, as key=value, on standard error.

On the file that it is, not on `sys.stderr`: an application may close that or put its own there, and
what then goes wrong with a line must not stop who says it.
"""

import contextlib
import logging
import os
from typing import TextIO, cast

import structlog


class _Lenient:
    """Standard error; that its disk is full keeps nobody from working, or from saying so."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.dup(2)
        except OSError:  # the application has closed it, or there are no more
            self._descriptor = 2

    def write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def flush(self) -> None:
        pass


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
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lenient())),
        cache_logger_on_first_use=False,
    )
