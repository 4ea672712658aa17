"""Structured logs that name ids, never people."""

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

_PERSONAL = frozenset(
    {"name", "aliases", "alias", "note", "facts", "subject", "requester", "contact", "answer", "question",
     "prompt", "text", "pictures", "picture", "body", "content", "messages"}
)  # fmt: skip
_SECRET = re.compile(
    r"lethe_[A-Za-z0-9_-]{20,}"  # API keys
    r"|whsec_[A-Za-z0-9+/=]{20,}"  # webhooks' secrets
    r"|(?<=://)[^/@\s]*:[^/@\s]*(?=@)"  # user:password in a URL
)


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop values of fields that may be personal, and anything that looks like a key or a password."""
    for field, value in event.items():
        if field in _PERSONAL:
            event[field] = "[redacted]"
        elif isinstance(value, str):
            event[field] = _SECRET.sub("[redacted]", value)
    return event


def configure_logging(*, json: bool = True, level: int = logging.INFO) -> None:
    """Send this process's logs to standard error: JSON lines, or coloured text for a person.

    Args:
        json: JSON lines when true.
        level: lowest level that is written.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger that marks its lines with `room`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room)
    return logger
