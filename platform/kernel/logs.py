"""Structured logs, one JSON object a line, that cannot tell a secret.

Fields with telling names are starred, tracebacks carry no local variables, and a database error, also one that another
error grew out of, is reduced to its SQLSTATE and constraint: PostgreSQL's DETAIL line quotes the row. Of what libraries
log only the kind of error is kept.
"""

import logging
import sys
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import asyncpg
import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer

_TELLING = (
    "authorization",
    "dpop",
    "secret",
    "token",
    "password",
    "assertion",
    "private",
    "phone",
    "name_",
    "jws",
    "key",
)
_STARS = "***"
_TRANSFORMER = ExceptionDictTransformer(show_locals=False)


def configure(level: str) -> None:
    """Send our own lines and the libraries' warnings to stderr as JSON."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            reduce_database_errors,
            structlog.processors.ExceptionRenderer(tell_failure),
            redact,
            structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LibraryFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def redact(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Star every field whose name tells that its value is not for the log."""
    for name in fields:
        lowered = name.lower()
        if name not in ("event", "level", "timestamp", "exception") and any(
            word in lowered for word in _TELLING
        ):
            fields[name] = _STARS
    return fields


def reduce_database_errors(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace a PostgreSQL error by its SQLSTATE and constraint name."""
    error = fields.get("exc_info")
    if isinstance(error, asyncpg.PostgresError):
        del fields["exc_info"]
        fields["sqlstate"] = error.sqlstate
        fields["constraint"] = getattr(error, "constraint_name", None)
        fields["error"] = type(error).__name__
    return fields


def tell_failure(
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None],
) -> list[dict[str, Any]]:
    """The traceback and its causes; a database error among them says no more than its SQLSTATE."""
    return [_reduce(stack) for stack in _TRANSFORMER(exc_info)]


def _reduce(stack: dict[str, Any]) -> dict[str, Any]:
    kind = getattr(asyncpg, stack["exc_type"], None)
    if isinstance(kind, type) and issubclass(kind, asyncpg.PostgresError | asyncpg.InterfaceError):
        stack["exc_value"] = str(getattr(kind, "sqlstate", None) or "")
    stack["exceptions"] = [[_reduce(one) for one in group] for group in stack.get("exceptions", [])]
    return stack


class LibraryFormatter(logging.Formatter):
    """One JSON object a line, without the library's text and without the error's: either may quote what was sent."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname, "logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
        return msgspec.json.encode(fields).decode()


def _serialise(fields: Any, **_options: Any) -> str:
    return msgspec.json.encode(fields, enc_hook=repr).decode()
