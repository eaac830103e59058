"""Remove secrets and personal data from log events."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"
SECRET_KEY = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|api[_-]?key|credential|private[_-]?key|"
    r"e[_-]?mail|phone",
    re.IGNORECASE,
)
# Every pattern is anchored and bounded: clients can send 60 kB of text that almost matches.
SECRET_VALUES = (
    # scheme://user:password@host, up to the last @, because passwords may contain one
    (re.compile(r"(://[^\s:/@]{0,100}:)\S{1,300}(@)"), rf"\1{REDACTED}\2"),
    (re.compile(r"\b(Bearer|Basic)\s{1,3}[\w.~+/=-]{1,4000}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*"), REDACTED),  # a JSON Web Token
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(\.[\w-]+)+"), REDACTED),  # an e-mail address
    (  # a header with its whole value: a cookie has several values, a token follows its scheme
        re.compile(
            r"""(?i)((?:cookie|authori[sz]ation)\\?["']?\s{0,3}[=:]\s{0,3}\\?["']?)[^\r\n"'\\]{1,4000}"""
        ),
        rf"\1{REDACTED}",
    ),
    (  # password=..., access_token=..., "api_key": "..." in a text; quoted values have spaces
        re.compile(
            r"""(?i)((?:passw|secret|token|(?:api|private)[_-]?key|credential|session)\w{0,10}"""
            r"""\\?["']?\s{0,3}[=:]\s{0,3}(?:b(?=["']))?)(\\?["'])?"""
            r"""(?(2)(?:(?!\2)\\?.){1,4000}|[^\s"'&,;]{1,4000})"""
        ),
        rf"\1\2{REDACTED}",
    ),
)
# A value without any of these, in lower case, holds no secret. Ignoring the case in this pattern
# would cost more than the rest of the line.
SECRET_HINT = re.compile(
    r"@|eyj|b(?:earer|asic)|passw|se(?:cret|ssion)|token|(?:api|private)[_-]?key|c(?:ookie|redential)|"
    r"authori"
)
PLAIN = (int, float, type(None))  # types that hold no secret


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace secrets and personal data in an event, at any depth."""
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
        case tuple((str() | bytes() as key, item)):  # a header of ASGI or of a client
            return [_redact_value(key), _redact_item(key, item)]
        case list() | tuple() | set() | frozenset():
            return [_redact_value(item) for item in value]
    return _redact_value(str(value))
