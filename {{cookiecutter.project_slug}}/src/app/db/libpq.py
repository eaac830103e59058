"""PostgreSQL URLs and variables for psql and other programs that use libpq."""

from urllib.parse import quote, urlencode

from app.db.settings import DatabaseSettings
from app.db.url import split_postgres_url

# Parameters of libpq and their variables:
# https://www.postgresql.org/docs/current/libpq-envars.html
VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def direct_url(settings: DatabaseSettings) -> str:
    """Return DATABASE_UNPOOLED_URL, or DATABASE_URL, as it is written.

    Raises:
        ValueError: there is neither.
    """
    url = settings.database_unpooled_url or settings.database_url
    if url is None:
        raise ValueError("DATABASE_URL is missing")
    return url.get_secret_value()


def libpq_parameters(url: str) -> dict[str, str]:
    """Return the parameters of libpq for a URL. Those of other drivers are left out.

    Args:
        url: in any form that `parse_postgres_url` accepts.

    Raises:
        ValueError: the URL is malformed. The message does not repeat it.
    """
    parts, query = split_postgres_url(url)
    if query.get("ssl") == "true":
        query.setdefault("sslmode", "require")
    given = query | {
        "host": parts.host,
        "port": str(parts.port or ""),
        "user": parts.username,
        "password": parts.password,
        "dbname": parts.database or parts.username,
    }
    return {name: value for name in VARIABLES if (value := given.get(name))}


def libpq_url(parameters: dict[str, str]) -> str:
    """Return a URL of these parameters. Every special character is encoded."""
    query = dict(parameters)
    user, password = query.pop("user", ""), query.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    host, port, name = (query.pop(key, "") for key in ("host", "port", "dbname"))
    if host.startswith("/"):  # a socket directory
        query = {"host": host} | ({"port": port} if port else {}) | query
        host = port = ""
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    url = f"postgresql://{login}{'@' if login else ''}{place}{':' if port else ''}{port}"
    encoded = urlencode(query, quote_via=quote, safe="/")
    return f"{url}/{quote(name, safe='')}{'?' if encoded else ''}{encoded}"


def without_password(url: str) -> str:
    """Return a URL that may be logged."""
    parameters = libpq_parameters(url)
    parameters.pop("password", None)
    return libpq_url(parameters)
