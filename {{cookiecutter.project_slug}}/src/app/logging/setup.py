"""Logs: one line an event on standard output, from structlog and from the standard library alike.

Lines go to file descriptor 1 as bytes, because that is three times faster than the standard
library's handlers, and never to standard error, which some platforms colour as errors.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from app.settings import Settings

REDACTED = "[redacted]"
SECRET_KEY = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|api[_-]?key|credential|private[_-]?key|"
    r"e[_-]?mail|phone",
    re.IGNORECASE,
)
# Every pattern is anchored and bounded: a client may send 60 kB that nearly match.
SECRET_VALUES = (
    # scheme://user:password@host, to the last @, because passwords may have one
    (re.compile(r"(://[^\s:/@]{0,100}:)\S{1,300}(@)"), rf"\1{REDACTED}\2"),
    (re.compile(r"\b(Bearer|Basic)\s{1,3}[\w.~+/=-]{1,4000}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*"), REDACTED),  # a JSON Web Token
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(\.[\w-]+)+"), REDACTED),  # an e-mail address
    (  # a header and all of its value: a cookie has several, and a scheme comes before a token
        re.compile(
            r"""(?i)((?:cookie|authori[sz]ation)\\?["']?\s{0,3}[=:]\s{0,3}\\?["']?)[^\r\n"'\\]{1,4000}"""
        ),
        rf"\1{REDACTED}",
    ),
    (  # password=..., access_token=..., "api_key": "..." inside a text; between quotes a phrase
        re.compile(
            r"""(?i)((?:passw|secret|token|(?:api|private)[_-]?key|credential|session)\w{0,10}"""
            r"""\\?["']?\s{0,3}[=:]\s{0,3}(?:b(?=["']))?)(\\?["'])?"""
            r"""(?(2)(?:(?!\2)\\?.){1,4000}|[^\s"'&,;]{1,4000})"""
        ),
        rf"\1\2{REDACTED}",
    ),
)
# What a value, in lower case, must contain before the patterns are worth trying: ignoring case here
# would make this the most expensive part of a line.
SECRET_HINT = re.compile(
    r"@|eyj|b(?:earer|asic)|passw|se(?:cret|ssion)|token|(?:api|private)[_-]?key|c(?:ookie|redential)|"
    r"authori"
)
PLAIN = (int, float, type(None))  # what holds no secret
# Seven lines at every start, and whole URLs with the secrets in their queries.
QUIET = ("alembic.runtime.plugins", "httpx")
# What would move a terminal's cursor, or more; tracebacks have lines.
CONTROLS = {n: rf"\x{n:02x}" for n in (*range(32), *range(127, 160)) if n != ord("\n")}
LEVEL_NAMES = {"warning": "warn", "critical": "error"}  # the four names that platforms read


def configure_logs(settings: Settings) -> None:
    """From now on, send every log line of this process to standard output."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    render = [_to_json] if settings.logs_are_json else [_escape, console, _encode]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # never closed: every line of the process goes there, to its end
        logger_factory=structlog.BytesLoggerFactory(open(1, "wb", buffering=0, closefd=False)),  # noqa: SIM115 - standard output stays open
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=level, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


class LogContext:
    """Adds values, such as a request id, to every line logged inside; entered at every request."""

    __slots__ = ("_tokens", "_values")

    def __init__(self, **values: str) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._values)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def current_request_id() -> str | None:
    """The id of the request that is being served, if any."""
    return current_value("request_id")


def current_value(name: str) -> str | None:
    """What LogContext adds under that name to the lines logged here, if anything."""
    value: str | None = structlog.contextvars.get_contextvars().get(name)
    return value


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take secrets and personal data out of an event, at any depth."""
    return {key: _redact_item(key, value) for key, value in event.items()}


def _redact_item(key: object, value: Any) -> Any:
    return REDACTED if _is_secret(str(key)) else _redact_value(value)


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return SECRET_KEY.search(key) is not None


def _redact_value(value: Any) -> Any:
    if isinstance(value, str):
        if SECRET_HINT.search(value.lower()):
            for pattern, replacement in SECRET_VALUES:
                value = pattern.sub(replacement, value)
        return value
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _redact_item(key, item) for key, item in value.items()}
    match value:
        case tuple((str() | bytes() as key, item)):  # as ASGI and clients have headers
            return [_redact_value(key), _redact_item(key, item)]
        case list() | tuple() | set() | frozenset():
            return [_redact_value(item) for item in value]
    return _redact_value(str(value))


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    level = event.pop("level")
    first = {
        "timestamp": event.pop("timestamp"),
        "level": LEVEL_NAMES.get(level, level),
        "message": event.pop("event"),
    }
    line = first | dict(event) | first  # first in order, and not to be overwritten
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # half a surrogate pair, a number over 64 bits: slower, but never lost
        return json.dumps(line, default=str).encode()


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """For a terminal; what is nested is escaped when it is made a text."""
    return {k: v.translate(CONTROLS) if isinstance(v, str) else v for k, v in event.items()}


def _encode(_logger: WrappedLogger, _method: str, line: str) -> bytes:
    return line.encode(errors="backslashreplace")


class _ToStructlog(logging.Handler):
    """Brings what uvicorn, SQLAlchemy, Alembic and warnings log into the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit the format
            message = f"{record.msg} {record.args}"
        level = max(10, min(50, record.levelno // 10 * 10))  # libraries invent levels between
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger().critical("uncaught exception", exc_info=(kind, error, traceback))
