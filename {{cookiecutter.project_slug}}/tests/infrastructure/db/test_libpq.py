from urllib.parse import quote

import pytest

from app.db.libpq import direct_url, libpq_parameters, libpq_url, without_password
from app.db.url import parse_postgres_url
from conftest import settings_for

PASSWORD = "p@ss:w/o#r?d% +&"
ENCODED = quote(PASSWORD, safe="")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@db:5433/app", "postgresql://u:p@db:5433/app"),
        ("postgresql+asyncpg://u:p@db/app", "postgresql://u:p@db/app"),
        (f"postgresql://u:{PASSWORD}@db/app", f"postgresql://u:{ENCODED}@db/app"),
        ("postgresql://u@db", "postgresql://u@db/u"),
        ("postgresql://u%40corp@db/my%20app%3F", "postgresql://u%40corp@db/my%20app%3F"),
        ("postgresql://u:p@[::1]:5432/app", "postgresql://u:p@[::1]:5432/app"),
        ("postgresql://u:@/app?host=/tmp/a b", "postgresql://u@/app?host=/tmp/a%20b"),
        (
            "postgresql://u@/app?host=/run&port=5433",
            "postgresql://u@/app?host=/run&port=5433",
        ),
        (
            "postgresql://u@db/app?sslmode=require&connect_timeout=7&channel_binding=require",
            "postgresql://u@db/app?channel_binding=require&connect_timeout=7&sslmode=require",
        ),
        ("postgresql://u@db/app?ssl=true", "postgresql://u@db/app?sslmode=require"),
        ("postgresql://u@db/app?pgbouncer=true&pool_timeout=3", "postgresql://u@db/app"),
        (
            "postgresql://u@db/app?options=-c%20jit%3Doff",
            "postgresql://u@db/app?options=-c%20jit%3Doff",
        ),
    ],
)
def test_url_is_written_in_the_form_of_libpq(url: str, expected: str) -> None:
    written = libpq_url(libpq_parameters(url))
    assert written == expected
    assert libpq_url(libpq_parameters(written)) == written
    before, after = parse_postgres_url(url).url, parse_postgres_url(written).url
    assert after.set(database="x") == before.set(database="x")
    assert after.database == before.database or before.database is None


def test_url_without_password_keeps_the_rest() -> None:
    url = f"postgresql://u:{PASSWORD}@db:5433/app?sslmode=require"
    assert without_password(url) == "postgresql://u@db:5433/app?sslmode=require"


def test_direct_url_is_that_without_the_pooler() -> None:
    direct = "postgresql://u:p@db/app"
    pooled = settings_for("postgresql://u:p@pooler/app", database_unpooled_url=direct)
    assert direct_url(pooled) == direct
    assert direct_url(settings_for(direct)) == direct
    with pytest.raises(ValueError, match="DATABASE_URL is missing"):
        direct_url(settings_for(direct).model_copy(update={"database_url": None}))
