"""Failure tests: the compose stack of a baked service under load, while its servers fail.

Each prints measurements: requests sent and failed, and the seconds to recover.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from engine import (
    Load,
    Stack,
    address_of,
    ask,
    attempt,
    container,
    docker,
    is_ready,
    kill,
    network,
    record,
    state_of,
    wait_until,
)

pytestmark = pytest.mark.containers

PROBLEM = "application/problem+json"
PASSWORD = "of-this-test"
CONCURRENTLY = """
from alembic import op

revision = "9000"
down_revision = "0001"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_bookmarks_title", "bookmarks", ["title"], postgresql_concurrently=True
        )


def downgrade() -> None:
    op.drop_index("ix_bookmarks_title")
"""
FAILING = CONCURRENTLY.replace('["title"]', '["no_such_column"]')


def with_migration(image: str, text: str, folder: Path) -> str:
    """Build the next version of an image: the same code with one more migration."""
    tag = f"example-service:test-{abs(hash(text)) % 10**8}"
    folder.mkdir(exist_ok=True)
    (folder / "9000_next.py").write_text(text)
    (folder / "Dockerfile").write_text(
        f"FROM {image}\n"
        "COPY 9000_next.py /opt/venv/lib/python3.14/site-packages/app/migrations/versions/\n"
        "ENV COMMIT_SHA=decaf\n"
    )
    docker("build", "--quiet", "--tag", tag, str(folder))
    return tag


@pytest.fixture(scope="session")
def next_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_migration(image, CONCURRENTLY, tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="session")
def failing_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return with_migration(image, FAILING, tmp_path_factory.mktemp("failing"))


@contextmanager
def probing(url: str) -> Iterator[list[tuple[float, int, int, float]]]:
    """Probe live and ready five times per second; yield time, both statuses and the duration."""
    seen: list[tuple[float, int, int, float]] = []
    over = threading.Event()

    def probe() -> None:
        while not over.is_set():
            started = time.monotonic()
            live = ask(f"{url}/health/live", timeout=5).status
            ready = ask(f"{url}/health/ready", timeout=5).status
            seen.append((started, live, ready, time.monotonic() - started))
            over.wait(0.2)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def replica_url(stack: Stack) -> str:
    """Return the URL of the replica. The proxy would answer if it is not ready."""
    (name,) = stack.containers("app")
    return f"http://{address_of(name)}:8000"


def load_on(url: str) -> Load:
    host, port = url.removeprefix("http://").split(":")
    return Load(host, int(port))


def test_eight_replicas_on_an_empty_database_migrate_once(next_image: str) -> None:
    with network() as name, ExitStack() as stack:
        options = ("--network", name, "-e", f"POSTGRES_PASSWORD={PASSWORD}", "-e",
                   "POSTGRES_USER=app")  # fmt: skip
        server = stack.enter_context(container("postgres:18", options=options))
        url = f"postgresql://app:{PASSWORD}@{server}:5432/app"
        started = time.monotonic()
        options = ("--network", name, "-e", f"DATABASE_URL={url}", "-e", "ENVIRONMENT=test",
                   "-e", "DATABASE_POOL_SIZE=4")  # fmt: skip
        replicas = [stack.enter_context(container(next_image, options=options)) for _ in range(8)]
        for replica in replicas:
            wait_until(
                lambda r=replica: is_ready(f"http://{address_of(r)}:8000"), seconds=60, of=replica
            )
        seconds = time.monotonic() - started
        logs = [docker("logs", replica) for replica in replicas]
    migrated = sum('"message":"migrated"' in text for text in logs)
    errors = [line for text in logs for line in text.splitlines() if '"level":"error"' in line]
    record(f"8 replicas at once: {migrated} migrated, 8 ready after {seconds:.1f} s")
    assert migrated == 1
    assert errors == []


def test_failed_migration_exits_and_running_replicas_serve(
    stack: Stack, failing_image: str
) -> None:
    stack.up()
    with load_on(stack.url) as load:
        (running,) = stack.containers("app")
        settings = docker("inspect", "--format", "{{json .Config.Env}}", running)
        database_url = next(
            entry for entry in settings.strip("[]").replace('"', "").split(",")
            if entry.startswith("DATABASE_URL=")
        )  # fmt: skip
        result = attempt(
            "run", "--rm", "--network", f"{stack.name}_default", "-e", database_url,
            "-e", "ENVIRONMENT=test", failing_image,
        )  # fmt: skip
        time.sleep(1)
    record(f"failing migration: {load.summary()}")
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if '"level":"error"' in line]
    assert '"message":"not migrated"' in line
    assert 'column \\"no_such_column\\" does not exist' in line
    assert '"listening"' not in result.stdout
    assert load.failed == []
    assert stack.psql("SELECT version_num FROM alembic_version") == "0001"


def test_sigterm_under_load_loses_no_request(stack: Stack) -> None:
    stack.up()
    (name,) = stack.containers("app")
    docker("update", "--restart", "no", name)
    url = replica_url(stack)
    with probing(url) as probes, load_on(url) as load:
        time.sleep(1)
        sent_at = time.monotonic()
        docker("kill", "--signal", "SIGTERM", name)
        wait_until(lambda: ask(f"{url}/health/ready").status == 503, seconds=4)
        unready = time.monotonic() - sent_at
        time.sleep(2)  # a load balancer reacts late: requests still arrive
        load.stop()
        before_end = state_of(name)["Running"]
        docker("wait", name)
        ended = time.monotonic() - sent_at
    record(f"SIGTERM under load: {load.summary()}; ready was 503 after {unready:.2f} s, "
        f"it ended after {ended:.1f} s")  # fmt: skip
    assert before_end
    assert load.failed == []
    assert state_of(name)["ExitCode"] == 0
    assert ended < 25
    assert len(load.created) == int(stack.psql("SELECT count(*) FROM bookmarks"))
    assert all(live == 200 for moment, live, *_ in probes if moment < sent_at)


def test_rolling_restart_behind_proxy_loses_no_request(stack: Stack) -> None:
    stack.up("--scale", "app=2")
    replicas = stack.containers("app")
    with load_on(stack.url) as load:
        time.sleep(1)
        for replica in replicas:
            docker("stop", "--time", "30", replica)
            assert state_of(replica)["ExitCode"] == 0
            docker("start", replica)
            wait_until(lambda r=replica: state_of(r)["Health"]["Status"] == "healthy", seconds=30)
            time.sleep(1.5)  # the proxy resolves the name and checks the health
    record(f"rolling restart of 2 replicas: {load.summary()}")
    assert load.failed == []
    assert len(load.created) == int(stack.psql("SELECT count(*) FROM bookmarks"))


def test_killed_database_returns_503_and_recovers(stack: Stack) -> None:
    stack.up()
    url = replica_url(stack)
    (app,), (database,) = stack.containers("app"), stack.containers("database")
    docker("update", "--restart", "no", database)  # stays down until docker start
    with probing(url) as probes, load_on(url) as load:
        time.sleep(1)
        killed_at = time.monotonic()
        kill(database)
        time.sleep(5)
        docker("start", database)
        accepting = ("exec", database, "pg_isready", "-qh127.0.0.1")
        wait_until(lambda: attempt(*accepting).returncode == 0, seconds=30)
        back_at = time.monotonic()
        time.sleep(4)
    red = min(moment for moment, _, ready, _ in probes if ready == 503)
    recovered = load.recovered_after(back_at)
    record(f"database killed for {back_at - killed_at:.1f} s: {load.summary()}; "
        f"ready was 503 after {red - killed_at:.2f} s, last failure {recovered:.2f} s after it "
        "accepted connections")  # fmt: skip
    assert load.failed
    assert {(outcome.status, outcome.kind) for outcome in load.failed} == {(503, PROBLEM)}
    assert all(live == 200 for _, live, *_ in probes)
    assert red - killed_at < 3
    assert recovered < 2
    assert ask(f"{url}/health/ready").status == 200
    assert docker("inspect", "--format", "{{.RestartCount}}", app) == "0"
    assert len(load.created) <= int(stack.psql("SELECT count(*) FROM bookmarks"))


def test_frozen_database_returns_503_within_limits_and_recovers(stack: Stack) -> None:
    stack.up()
    url = replica_url(stack)
    (database,) = stack.containers("database")
    with probing(url) as probes, load_on(url) as load:
        time.sleep(1)
        docker("pause", database)
        frozen_at = time.monotonic()
        time.sleep(10)
        docker("unpause", database)
        thawed_at = time.monotonic()
        time.sleep(4)
    recovered = load.recovered_after(thawed_at)
    slowest = max(outcome.seconds for outcome in load.outcomes)
    red = min(moment + took for moment, _, ready, took in probes if ready == 503)
    record(f"database frozen for 10 s: {load.summary()}; ready was 503 after "
        f"{red - frozen_at:.1f} s, last failure {recovered:.2f} s after it was thawed")  # fmt: skip
    assert load.failed
    assert {(outcome.status, outcome.kind) for outcome in load.failed} == {(503, PROBLEM)}
    assert slowest < 9.5, "statement 5.5 s, or pool 3 s and a statement"
    assert all(live == 200 for _, live, *_ in probes)
    assert red - frozen_at < 5
    assert recovered < 2


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_failed_cache_causes_no_errors(stack: Stack, how: str) -> None:
    stack.up()
    url = replica_url(stack)
    (cache,) = stack.containers("cache")
    page = {"url": "https://example.com/cached", "title": "Cached"}
    created = ask(f"{url}/bookmarks", method="POST", body=page).json()
    docker("update", "--restart", "no", cache)
    statuses = []
    with load_on(url) as load:
        time.sleep(1)
        if how == "killed":
            kill(cache)
        else:
            docker("pause", cache)
        until = time.monotonic() + 5
        while time.monotonic() < until:  # reads through the cache
            statuses.append(ask(f"{url}/bookmarks/{created['id']}").status)
        degraded = ask(f"{url}/health/ready")
        docker("start" if how == "killed" else "unpause", cache)
        wait_until(lambda: ask(f"{url}/health/ready").json()["status"] == "ready", seconds=10)
    record(f"cache {how}: {load.summary()}; {len(statuses)} cached reads, all "
        f"{set(statuses)}")  # fmt: skip
    assert load.failed == []
    assert set(statuses) == {200}
    assert degraded.status == 200
    assert degraded.json()["status"] == "degraded"


@pytest.mark.thorough  # test_platform.py also rolls back
def test_older_version_on_newer_schema_serves(stack: Stack, next_image: str) -> None:
    """Deploy a version with a migration, and roll back, under load."""
    stack.up()
    newer = stack.variables | {"IMAGE_TAG": next_image.split(":")[1]}
    older = dict(stack.variables)
    stack.up("--scale", "app=2")
    with load_on(stack.url) as load:
        for variables in (newer, older):
            for old in stack.containers("app"):
                before = set(stack.containers("app"))
                stack.variables = variables
                stack.compose(
                    "up", "--no-build", "--no-recreate", "--detach", "--scale", "app=3", "app"
                )
                (new,) = set(stack.containers("app")) - before
                wait_until(lambda n=new: state_of(n)["Health"]["Status"] == "healthy", seconds=30)
                time.sleep(1.5)
                docker("stop", "--time", "30", old)
                docker("rm", old)
            commits = {
                ask(f"http://{address_of(name)}:8000/health").json()["commit"]
                for name in stack.containers("app")
            }
            assert commits == {"decaf" if variables is newer else "c0ffee"}
    logs = stack.compose("logs", "app")
    record(f"deployment with a migration, and rollback: {load.summary()}")
    assert load.failed == []
    assert "the database is newer than this code" in logs
    assert stack.psql("SELECT version_num FROM alembic_version") == "9000"
    assert len(load.created) == int(stack.psql("SELECT count(*) FROM bookmarks"))
