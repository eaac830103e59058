"""Roll-outs of a baked service on a real cluster, and those that must stop.

Without a cluster these tests are skipped; see `make test-kubernetes`.
"""

import time
from collections import Counter
from pathlib import Path

import pytest
from engine import ask, record, wait_until
from kubernetes import MIGRATION, NEW_CONNECTIONS, SERVICE, WORKER, Namespace
from kubernetes_manifests import patch_of
from kubernetes_versions import Versions

pytestmark = [pytest.mark.containers, pytest.mark.kubernetes]

MIGRATED = '"message":"migrated"'
AT_HEAD = "the database is at the last migration"
DEADLINE_SECONDS = 15
# A test shortens the deadline of 420 s, which is longer than the startup probe allows.
SHORT_DEADLINE = patch_of(
    "Deployment", SERVICE, "apps/v1", spec={"progressDeadlineSeconds": DEADLINE_SECONDS}
)
NO_DRAIN = {"DRAIN_SECONDS": "0"}
LATE_SECONDS = 2  # shorter than DRAIN_SECONDS, by default 5


def errors_in(logs: dict[str, str]) -> list[str]:
    return [x for text in logs.values() for x in text.splitlines() if '"level":"error"' in x]


def test_first_roll_out_migrates_in_the_job_and_pods_find_it_done(deployed: Namespace) -> None:
    first = deployed.first_rollout
    assert first is not None
    jobs = [text for name, text in first.logs.items() if name.startswith(MIGRATION)]
    servers = [text for text in first.logs.values() if '"listening"' in text and AT_HEAD in text]
    assert [text.count(MIGRATED) for text in jobs] == [1]
    assert len(servers) == 2
    assert sum(text.count(MIGRATED) for text in first.logs.values()) == 1
    assert errors_in(first.logs) == []
    assert first.restarts == 0
    record(f"Kubernetes, first roll-out: migrated after {first.seconds_to_migrated:.1f} s, a "
        f"request served after {first.seconds_to_served:.1f} s, with a new database")  # fmt: skip


@pytest.mark.thorough
def test_job_and_pods_at_once_migrate_once(versions: Versions, tmp_path: Path) -> None:
    with Namespace(versions.manifests, tmp_path, versions.first) as service:
        service.overlay.patches.append(patch_of(
            "HorizontalPodAutoscaler", SERVICE, "autoscaling/v2",
            spec={"minReplicas": 3, "maxReplicas": 3},
        ))  # fmt: skip
        service.overlay.patches.append(
            patch_of("Deployment", SERVICE, "apps/v1", spec={"replicas": 3})
        )
        started = time.monotonic()
        service.apply(service.render())
        wait_until(lambda: service.ask("/bookmarks").status == 200, seconds=120)
        seconds = time.monotonic() - started
        wait_until(lambda: len(service.endpoints()) == 3, seconds=120)
        assert service.finish_job(MIGRATION) == "Complete"
        logs = service.logs_of_pods()
        migrated = [name for name, text in logs.items() if MIGRATED in text]
        waited = sum("waiting for another replica to migrate" in text for text in logs.values())
        assert len(migrated) == 1
        assert sum(text.count(MIGRATED) for text in logs.values()) == 1
        assert sum(AT_HEAD in text for text in logs.values()) >= 3
        assert errors_in(logs) == []
        assert service.restarts() == service.restarts("worker") == 0
        assert service.psql("SELECT version_num FROM alembic_version") == versions.revision
        record(f"Kubernetes, Job and 3 pods at once: 1 migrated, {waited} waited for it, a request "
            f"served after {seconds:.1f} s")  # fmt: skip


def test_rolling_update_under_load_loses_no_request(service: Namespace, versions: Versions) -> None:
    rows = int(service.psql("SELECT count(*) FROM bookmarks"))
    with (
        service.watched_endpoints() as endpoints,
        service.load() as load,
        service.load(**NEW_CONNECTIONS) as others,
    ):
        time.sleep(1)
        seconds = service.deploy(versions.second)
        time.sleep(1)
    record(f"Kubernetes, rolling update of 2 replicas with a Job in {seconds:.1f} s: "
        f"{load.summary()}; on new connections: {others.summary()}")  # fmt: skip
    assert load.failed == others.failed == []
    assert min(endpoints) == 2, "a new pod is ready before an old one ends"
    assert service.commits() == {"decaf"}
    created = len(load.created) + len(others.created)
    assert created == int(service.psql("SELECT count(*) FROM bookmarks")) - rows > 0


@pytest.mark.parametrize("config", [{}, NO_DRAIN], ids=["drain", "no drain"])
def test_stopped_pod_loses_late_requests_only_without_the_drain(
    service: Namespace, config: dict[str, str]
) -> None:
    """Requests go to the address of the pod, as from a proxy that learns of its end too late.

    On a cluster of one node the proxy knows it at once, so requests to the Service would not fail.
    """
    service.overlay.config = dict(config)
    service.roll_out()
    name, address = next(iter(service.endpoints().items()))
    service.kubectl("delete", "pod", name, "--wait=false")
    statuses = Counter[int]()
    ended = time.monotonic() + LATE_SECONDS
    while time.monotonic() < ended:
        statuses[ask(f"http://{address}:8000/bookmarks", timeout=1).status] += 1
    record(f"Kubernetes, requests to a stopped pod for {LATE_SECONDS} s, {config or 'drain'}: "
        f"{dict(statuses)}")  # fmt: skip
    assert (statuses.keys() == {200}) == (config != NO_DRAIN)


def test_version_that_never_becomes_ready_stops_the_roll_out(
    service: Namespace, versions: Versions
) -> None:
    service.overlay.patches.append(SHORT_DEADLINE)
    service.roll_out()  # a change outside of the pods
    before = service.endpoints()
    with service.load() as load:
        started = time.monotonic()
        service.roll_out(versions.silent, wait=False)
        result = service.attempt("rollout", "status", f"deployment/{SERVICE}", "--timeout=90s")
        seconds = time.monotonic() - started
        serving = service.endpoints()
        (silent,) = (p for p in service.pods() if p["metadata"]["name"] not in before)
        service.kubectl("rollout", "undo", f"deployment/{SERVICE}", f"deployment/{WORKER}")
        service.wait_for_rollout()
        time.sleep(1)
    record(f"Kubernetes, version that never becomes ready: the roll-out stopped after "
        f"{seconds:.1f} s with a deadline of {DEADLINE_SECONDS} s; {load.summary()}")  # fmt: skip
    assert result.returncode == 1
    assert "exceeded its progress deadline" in result.stderr
    assert silent["status"]["phase"] == "Running"
    assert serving == before == service.endpoints(), "the old pods have not been replaced"
    assert load.failed == []
    assert service.commits() == {"c0ffee"}


def test_failing_migration_rolls_out_nothing(service: Namespace, versions: Versions) -> None:
    before = service.endpoints()
    with service.load() as load:
        service.overlay.tag = versions.failing
        service.start_migration()
        started = time.monotonic()
        how = service.finish_job(MIGRATION)
        seconds = time.monotonic() - started
        log = service.logs(f"job/{MIGRATION}")
        time.sleep(1)
    record(f"Kubernetes, failing migration: the Job failed after {seconds:.1f} s; "
        f"{load.summary()}")  # fmt: skip
    assert how == "Failed"
    assert '"message":"not migrated"' in log
    assert 'column \\"no_such_column\\" does not exist' in log
    assert service.endpoints() == before
    assert load.failed == []
    assert service.commits() == {"c0ffee"}
    assert service.psql("SELECT version_num FROM alembic_version") == versions.revision


@pytest.mark.thorough
def test_old_version_on_the_newer_schema_serves(service: Namespace, versions: Versions) -> None:
    try:
        with service.load() as load:
            service.deploy(versions.migrating)
            assert service.commits() == {"decaf"}
            service.kubectl("rollout", "undo", f"deployment/{SERVICE}", f"deployment/{WORKER}")
            service.wait_for_rollout()
            time.sleep(1)
        record(f"Kubernetes, migration and roll-back: {load.summary()}")
        assert load.failed == []
        assert service.commits() == {"c0ffee"}
        assert service.psql("SELECT version_num FROM alembic_version") == "9000"
        for name in service.endpoints():
            assert "the database is newer than this code" in service.logs(f"pod/{name}")
    finally:
        service.psql("DROP INDEX IF EXISTS ix_bookmarks_title")
        service.psql(f"UPDATE alembic_version SET version_num = '{versions.revision}'")  # noqa: S608 - of a migration of the test
