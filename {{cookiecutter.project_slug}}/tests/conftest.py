"""Fixtures with a real PostgreSQL, real migrations and real processes.

Without DATABASE_URL, an embedded PostgreSQL is started for the whole run. Each worker of
pytest-xdist creates its own databases and drops them.
"""

import gc

gc.disable()  # until the tests are collected: the many objects of imports are no garbage

import json
import logging
import os
import shutil
import uuid  # option: accounts
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import ValidationError
from sqlalchemy import delete, text
from starlette.types import Receive, Scope, Send

import app
from app.db.engine import create_engine
from app.db.migrate import load_models
from app.dev.services import DataFolderError
from app.dev.valkey import embedded_valkey  # option: redis
from app.logging.setup import configure_logs
from app.main import create_app
from app.settings import Settings
from clusters import create_cluster, fast_folder, temporary_postgres
from databases import Databases, open_databases
from provider_accounts import provider_values  # option: oidc

pytest_plugins = ["postgres_server"]
pytest_plugins += ["authentication"]  # option: auth
pytest_plugins += ["provider_logins"]  # option: accounts
pytest_plugins += ["valkey_server"]  # option: redis

# Variables for every test, such as {"PAYMENT_KEY": "a-test-key"}: settings without a default.
TEST_VALUES: dict[str, str] = {}
# pytest and tests import this module under two names, so the key is not random.  # option: accounts
AUTH_KEYS = "tests:" + uuid.uuid5(uuid.NAMESPACE_DNS, "tests").hex  # option: accounts
# Values that settings of production need.  # option: accounts
MAIL_OF_PRODUCTION = {  # option: accounts
    "smtp_host": "smtp.invalid",  # option: accounts
    "mail_from": "no-reply@example.com",  # option: accounts
    "mail_link_url": "https://app.example.com/account",  # option: accounts
}  # option: accounts
Lines = Callable[[], list[dict[str, Any]]]


class Servers:
    """The embedded servers of a run. They start while the tests are imported."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._executor = ThreadPoolExecutor(1)
        self._start_result = self._executor.submit(self._start)

    def wait(self) -> None:
        """Wait until the servers run, and set the variables with their URLs."""
        try:
            urls = self._start_result.result()
        except DataFolderError as error:
            raise pytest.UsageError(error.message) from error
        for name, url in urls.items():
            os.environ.setdefault(name, url)

    def close(self) -> None:
        self._executor.shutdown()
        self._stack.close()

    def _start(self) -> dict[str, str]:
        create_cluster(settings_for)
        postgres = self._stack.enter_context(temporary_postgres())
        urls = {"TEST_DATABASE_URL": postgres, "TEST_TEMPLATE": "yes"}
        folder = Path(self._stack.enter_context(TemporaryDirectory()))  # option: redis
        valkey = self._stack.enter_context(embedded_valkey(folder))  # option: redis
        urls["TEST_REDIS_URL"] = valkey  # option: redis
        return {name: url for name, url in urls.items() if url}


SERVERS = pytest.StashKey[Servers]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once, unless DATABASE_URL names one. Remove the service's variables.

    Workers of pytest-xdist inherit the URLs. No variable of the service changes a test.
    """
    names = ["DATABASE_URL"]
    names += ["REDIS_URL"]  # option: redis
    given = {f"TEST_{name}": os.environ[name] for name in names if os.environ.get(name)}
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    os.environ.update(given)
    if "TEST_DATABASE_URL" in given:
        os.environ.pop("TEST_TEMPLATE", None)  # of tests that run these tests
    set_test_values()
    if "TEST_DATABASE_URL" not in os.environ and not config.option.collectonly:
        config.stash[SERVERS] = Servers()


def set_test_values() -> None:
    """Set the variables of TEST_VALUES. Processes that tests start inherit them.

    Raises:
        pytest.UsageError: a setting has no default and no value here, or a value is invalid.
    """
    os.environ.update(TEST_VALUES)
    try:
        settings_for("postgresql:///of-no-test")
    except ValidationError as error:
        problems = [
            (".".join(map(str, item["loc"])).upper(), item["msg"]) for item in error.errors()
        ]
        found = "; ".join(f"{variable}: {problem}" for variable, problem in problems)
        raise pytest.UsageError(f"{found} (see TEST_VALUES in tests/conftest.py)") from error


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    finish_start(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    finish_start(session.config)


def finish_start(config: pytest.Config) -> None:
    """Begin to collect garbage, and wait for the servers."""
    gc.freeze()  # a full collection skips the imported modules: it takes 0.2 s with them
    gc.enable()
    if servers := config.stash.get(SERVERS, None):
        servers.wait()


def pytest_unconfigure(config: pytest.Config) -> None:
    if servers := config.stash.get(SERVERS, None):
        servers.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests first: those that start processes take seconds."""
    items.sort(key=lambda item: item.path.parent.name != "processes")


def settings_for(database_url: str, **values: object) -> Settings:
    """Return settings for a test; every other setting has its default.

    On a busy machine, connecting to the database takes longer than the default limits.
    """
    waits = ("database_connect_timeout_seconds", "database_pool_timeout_seconds")
    values = dict.fromkeys(waits, 60) | values
    # Loggers keep the format of their first line, and other tests in this process read JSON.
    values = {"log_format": "json"} | values
    values = {"environment": "test", "database_url": database_url} | values
    values = {"redis_url": os.environ.get("TEST_REDIS_URL")} | values  # option: redis
    values = {"rate_limit": "1000000/second"} | values  # option: rate_limit
    values = {"auth_keys": AUTH_KEYS} | values  # option: accounts
    if values["environment"] not in {"development", "test"}:  # option: accounts
        values = MAIL_OF_PRODUCTION | values  # option: accounts
    values = provider_values(values["environment"]) | values  # option: oidc
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]  # Pydantic checks them


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


@pytest.fixture(scope="session")
async def databases() -> AsyncIterator[Databases]:
    server, has_template = os.environ["TEST_DATABASE_URL"], "TEST_TEMPLATE" in os.environ
    async with open_databases(server, settings_for, has_template=has_template) as databases:
        yield databases


@pytest.fixture
async def empty_database(databases: Databases) -> AsyncIterator[str]:
    async with databases.new() as url:
        yield url


@pytest.fixture
async def migrated_database(databases: Databases) -> AsyncIterator[str]:
    """Yield the URL of a migrated database for one test."""
    async with databases.new_migrated() as url:
        yield url


@pytest.fixture
def source() -> Iterator[Path]:
    """Yield a copy of the source that a test may change."""
    with TemporaryDirectory(dir=fast_folder()) as folder:
        shutil.copytree(Path(app.__path__[0]).parent, Path(folder, "src"))
        yield Path(folder, "src")


@pytest.fixture(scope="session")
async def database_url(databases: Databases) -> AsyncIterator[str]:
    """Yield the URL of a migrated database, one for each worker of pytest-xdist."""
    async with databases.new_migrated() as url:
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
    configure_logs(settings)  # the test may have set another format
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


@pytest.fixture(scope="session")
async def delete_rows(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Return a function that deletes all rows of the service, in one statement."""
    tables = reversed(load_models().sorted_tables)
    statements = " ".join(f"{delete(table)};" for table in tables)
    statements += " DELETE FROM pgqueuer;"  # option: postgres
    engine = create_engine(settings, pool_size=1)
    async with engine.connect() as connection:

        async def run() -> None:
            await connection.execute(text(f"DO $$ BEGIN {statements} END $$"))

        yield run
    await engine.dispose()


@pytest.fixture
async def clean_tables(delete_rows: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Delete the rows after the test: requests commit, so a rollback would not suffice."""
    yield
    await delete_rows()
