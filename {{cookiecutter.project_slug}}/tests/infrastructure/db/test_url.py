import ssl
from urllib.parse import quote

import pytest

from app.db.url import parse_postgres_url
from conftest import settings_for

PASSWORD = "p@ss:w/o#r?d%"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@db.example.com:5433/app", ("u", "p", "db.example.com", 5433, "app")),
        ("postgresql://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql+asyncpg://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql+psycopg2://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql://db", (None, None, "db", None, None)),
        ("postgresql://u@db/app", ("u", None, "db", None, "app")),
        ("postgresql://u:p@[::1]:5432/app", ("u", "p", "::1", 5432, "app")),
        ("postgresql://u:p@[fd12::2]/app", ("u", "p", "fd12::2", None, "app")),
        (f"postgresql://u:{quote(PASSWORD, safe='')}@db/app", ("u", PASSWORD, "db", None, "app")),
        (f"postgresql://u:{PASSWORD}@db/app", ("u", PASSWORD, "db", None, "app")),
        ("postgresql://u%40corp:p@db/my%20app", ("u@corp", "p", "db", None, "my app")),
        ("  postgresql://u:p@db/app\n", ("u", "p", "db", None, "app")),
        ("postgresql://u:p@db/app?application_name=me@host", ("u", "p", "db", None, "app")),
        ("postgresql://u:p@/app?host=db&port=5433", ("u", "p", "db", 5433, "app")),
        ("postgresql://u:p@%2Fvar%2Frun/app", ("u", "p", "/var/run", None, "app")),
    ],
)
def test_url_of_every_platform_is_parsed(
    url: str, expected: tuple[str | None, str | None, str, int | None, str | None]
) -> None:
    secret = settings_for(url).database_url
    assert secret is not None
    parsed = parse_postgres_url(secret.get_secret_value()).url
    assert (parsed.username, parsed.password, parsed.host, parsed.port, parsed.database) == expected


def test_query_parameters_of_libpq_are_translated() -> None:
    target = parse_postgres_url(
        "postgres://u:p@db/app?sslmode=require&connect_timeout=7&application_name=x"
        "&channel_binding=require&target_session_attrs=read-write"
    )
    assert target.connect_args == {
        "ssl": "require",
        "timeout": 7.0,
        "server_settings": {"application_name": "x"},
        "target_session_attrs": "read_write",
    }
    assert not target.is_pooled


def test_verifying_sslmode_builds_an_ssl_context() -> None:
    full = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-full").connect_args["ssl"]
    assert isinstance(full, ssl.SSLContext)
    assert full.check_hostname
    ca_only = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-ca").connect_args["ssl"]
    assert not ca_only.check_hostname
    system = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-full&sslrootcert=system")
    assert system.connect_args["ssl"].check_hostname
    assert parse_postgres_url("postgres://u:p@db/app?ssl=true").connect_args["ssl"] == "require"


def test_connect_timeout_of_zero_means_no_limit() -> None:
    target = parse_postgres_url("postgres://u:p@db/app?connect_timeout=0")
    assert target.connect_args["timeout"] is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://one,two/app", "not of the form"),
        ("http://db/app", "not of the form"),
        ("postgresql://u:hunter2@db/app?sslmode=always", "sslmode=always"),
        ("postgresql://u:hunter2@db/app?colour=red", "'colour'"),
        ("postgresql://u:hunter2@db/app?connect_timeout=soon", "connect_timeout"),
        ("postgresql://u:p@db/app?sslmode=verify-full&sslrootcert=/no/such", "cannot be read"),
    ],
)
def test_invalid_url_is_refused_without_repeating_the_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_postgres_url(url)
    assert "hunter2" not in str(caught.value)
