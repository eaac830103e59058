"""Fixtures with a real PostgreSQL, real migrations and real processes.

Without DATABASE_URL, an embedded PostgreSQL is started for the whole run. Each worker of
pytest-xdist creates its own database and drops it. Tests use no other database.
"""

import asyncio
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from sqlalchemy import text
from starlette.types import Receive, Scope, Send

import app
from app.db.engine import create_engine, create_migration_engine
from app.db.migrate import load_models, migrate
from app.dev.services import embedded_services
from app.logging.setup import configure_logs
from app.main import create_app
from app.settings import Settings

pytest_plugins: list[str] = []
pytest_plugins += ["authentication"]  # option: auth
pytest_plugins += ["valkey_server"]  # option: redis

SERVERS = pytest.StashKey[ExitStack]()
AUTH_KEYS = f"tests:{uuid.uuid4().hex}"  # option: auth
Lines = Callable[[], list[dict[str, Any]]]


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once, and pass their URLs to the workers of pytest-xdist.

    The other variables of the service are removed: they must not change the tests.
    """
    if "TEST_DATABASE_URL" not in os.environ:
        names = ["DATABASE_URL"]
        names += ["REDIS_URL"]  # option: redis
        given = {name: os.environ[name] for name in names if os.environ.get(name)}
        if "DATABASE_URL" not in given:
            folder = Path(tempfile.mkdtemp(prefix="test-servers-"))
            stack = config.stash[SERVERS] = ExitStack()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            given = stack.enter_context(embedded_services(folder)) | given
            asyncio.run(_disable_durability(given["DATABASE_URL"]))
        os.environ.update({f"TEST_{name}": url for name, url in given.items() if url})
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Run the slow tests first: those that start processes take seconds."""
    items.sort(key=lambda item: not hasattr(item.module, "Service"))


def pytest_unconfigure(config: pytest.Config) -> None:
    if stack := config.stash.get(SERVERS, None):
        stack.close()


async def _disable_durability(server: str) -> None:
    """Make writes faster: the data of a test need not survive a power cut."""
    engine = create_engine(settings_for(server), pool_size=1)
    async with engine.connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            await connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        await connection.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()


def settings_for(database_url: str, **values: object) -> Settings:
    """Return settings for a test; every other setting has its default."""
    values = {"environment": "test", "database_url": database_url} | values
    values = {"redis_url": os.environ.get("TEST_REDIS_URL")} | values  # option: redis
    values = {"rate_limit": "1000000/second"} | values  # option: rate_limit
    values = {"auth_keys": AUTH_KEYS} | values  # option: auth
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]  # Pydantic checks them


@asynccontextmanager
async def new_database() -> AsyncIterator[str]:
    """Create an empty database, yield its URL, and drop it."""
    server = os.environ["TEST_DATABASE_URL"]
    name = f"test_{uuid.uuid4().hex}"
    # Without a limit on the time of a statement: on a busy machine, DROP DATABASE takes seconds.
    engine = create_migration_engine(settings_for(server))
    administration = engine.execution_options(isolation_level="AUTOCOMMIT")
    try:
        async with administration.connect() as connection:
            await connection.execute(text(f'CREATE DATABASE "{name}"'))
            try:
                yield urlsplit(server)._replace(path=f"/{name}").geturl()
            finally:
                await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    finally:
        await engine.dispose()


@asynccontextmanager
async def running(service: FastAPI, *, host: str = "testserver") -> AsyncIterator[AsyncClient]:
    """Run the lifespan of an application, and yield a client of it."""
    async with running_with_state(service, host=host) as (client, _state):
        yield client


@asynccontextmanager
async def running_with_state(
    service: FastAPI, *, host: str = "testserver"
) -> AsyncIterator[tuple[AsyncClient, Mapping[str, Any]]]:
    """Run the lifespan of an application, and yield a client of it and the lifespan state."""
    async with service.router.lifespan_context(service) as lifespan_state:
        state = dict(lifespan_state or {})

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await service(scope, receive, send)

        transport = ASGITransport(with_state)
        async with AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            yield client, state


def is_problem(response: Response, status: int, name: str) -> bool:
    return (
        response.status_code == status
        and response.headers["Content-Type"] == "application/problem+json"
        and response.json()["type"] == f"urn:problem:{name}"
    )


@pytest.fixture
async def empty_database() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of the source that a test may change."""
    shutil.copytree(Path(app.__path__[0]).parent, tmp_path / "src")
    return tmp_path / "src"


@pytest.fixture(scope="session")
async def database_url() -> AsyncIterator[str]:
    """Yield the URL of a migrated database, one for each worker of pytest-xdist."""
    async with new_database() as url:
        await migrate(settings_for(url))
        yield url


@pytest.fixture(scope="session")
def settings(database_url: str) -> Settings:
    return settings_for(database_url)


@pytest.fixture(scope="session")
async def service(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with running(create_app(settings)) as client:
        yield client


@pytest.fixture
def lines(settings: Settings, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Lines]:
    """Return a function that reads the log lines so far, which must all be on stdout."""
    before = logging.root.handlers[:], logging.root.level
    configure_logs(settings)

    def read() -> list[dict[str, Any]]:
        out, err = capfdbinary.readouterr()
        assert err == b""
        return [json.loads(line) for line in out.splitlines()]

    yield read
    logging.captureWarnings(capture=False)
    logging.root.handlers[:], logging.root.level = before


@pytest.fixture
async def client(
    service: AsyncClient,
    clean_tables: None,  # noqa: ARG001 - used for its effect
    logged_in: None,  # noqa: ARG001 - used for its effect  # option: auth
) -> AsyncClient:
    """Return a client of the service with empty tables."""
    return service


@pytest.fixture
async def clean_tables(settings: Settings) -> AsyncIterator[None]:
    """Truncate the tables after the test: requests commit, so a rollback would not suffice."""
    yield
    tables = ", ".join(load_models().tables)
    if tables:
        engine = create_engine(settings, pool_size=1)
        async with engine.begin() as connection:
            await connection.execute(text(f"TRUNCATE {tables}"))
        await engine.dispose()
