"""Parse PostgreSQL URLs in the forms that hosting platforms use."""

import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from sqlalchemy import URL

# The user name and password end at the *last* @: passwords with @ : / ? # in them are common.
# The form without ? is tried first, since an @ after the ? may belong to a parameter.
_FORMS = [
    re.compile(
        r"postgres(?:ql)?(?:\+\w+)?://"
        rf"(?:(?P<user>[^:@/]*)(?::(?P<password>{password}*))?@)?"
        r"(?P<host>\[[^\]]+\]|[^:/?#@\[\],]*)(?::(?P<port>\d+))?"
        r"(?:/(?P<name>[^/?]*))?(?:\?(?P<query>.*))?"
    )
    for password in ("[^?]", ".")
]
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SERVER_SETTINGS = ("application_name", "options", "search_path", "timezone")
# Parameters of libpq and of other drivers. asyncpg does not support channel binding.
_IGNORED = (
    *("channel_binding", "gssencmode", "sslnegotiation", "sslsni"),
    *("connection_limit", "pool_timeout", "schema", "supa"),
)


@dataclass(frozen=True)
class PostgresTarget:
    """A SQLAlchemy URL, and the arguments of asyncpg.connect() that a URL cannot hold.

    Attributes:
        url: host or socket directory, port, user, password and database.
        connect_args: for `create_async_engine`; always with `server_settings`.
        is_pooled: behind a transaction pooler, which breaks prepared statements.
    """

    url: URL
    connect_args: dict[str, Any]
    is_pooled: bool


def split_postgres_url(text: str) -> tuple[URL, dict[str, str]]:
    """Return a PostgreSQL URL and its parameters. The host may be a socket directory.

    Raises:
        ValueError: the URL is malformed. The message does not repeat it.
    """
    matches = (form.fullmatch(text.strip()) for form in _FORMS)
    match = next((match for match in matches if match), None)
    if match is None:
        raise ValueError("it is not of the form postgresql://user:password@host:5432/name")
    query = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    host = query.pop("host", None) or unquote(match["host"] or "").strip("[]") or "localhost"
    port = query.pop("port", None) or match["port"]
    url = URL.create(
        "postgresql+asyncpg",
        username=_decode(match["user"]),
        password=_decode(match["password"]),
        host=host,
        port=int(port) if port else None,
        database=_decode(match["name"]),
    )
    return url, query


def parse_postgres_url(text: str) -> PostgresTarget:
    """Parse a PostgreSQL URL.

    Args:
        text: `postgres://`, `postgresql://` or with a driver; percent-encoded or not; with
            libpq's query parameters; IPv4, IPv6, name or socket directory (`?host=/path`).

    Raises:
        ValueError: the URL is malformed. The message does not repeat it.
    """
    url, query = split_postgres_url(text)
    is_pooled = query.pop("pgbouncer", "false") == "true"
    ssl_mode, root_certificate = query.pop("sslmode", None), query.pop("sslrootcert", None)
    if ssl_mode is None and query.pop("ssl", None) == "true":
        ssl_mode = "require"
    server_settings = {name: query.pop(name) for name in _SERVER_SETTINGS if name in query}
    connect_args: dict[str, Any] = {"server_settings": server_settings}
    if ssl_mode:
        connect_args["ssl"] = _ssl(ssl_mode, root_certificate)
    for name, value in query.items():
        if name == "connect_timeout":
            if not value.isdigit():
                raise ValueError("its connect_timeout is not a whole number")
            connect_args["timeout"] = float(value) or None  # libpq: 0 is no limit
        elif name == "target_session_attrs":
            connect_args[name] = value.replace("-", "_")
        elif name not in _IGNORED:
            raise ValueError(f"this service does not support the parameter {name!r}")
    return PostgresTarget(url, connect_args, is_pooled)


def _decode(part: str | None) -> str | None:
    return unquote(part) if part else None


def _ssl(mode: str, root_certificate: str | None) -> str | ssl.SSLContext:
    if mode not in _SSL_MODES:
        raise ValueError(f"sslmode={mode} is none of {', '.join(_SSL_MODES)}")
    if not mode.startswith("verify") and not (mode == "require" and root_certificate):
        return mode
    # With a root certificate, "require" verifies the certificate and not the name, as in libpq.
    file = None if root_certificate == "system" else root_certificate
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:
        reason = f"sslrootcert={root_certificate} cannot be read: {error.strerror}"
        raise ValueError(reason) from error
    context.check_hostname = mode == "verify-full"
    return context
