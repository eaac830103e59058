"""Failure tests of a baked service on a real cluster: pods, processes and the database fail.

Without a cluster these tests are skipped; see `make test-kubernetes`.
"""

import os
import signal
import time
from typing import Any

import pytest
from engine import ask, record, wait_until
from kubernetes import NEW_CONNECTIONS, SERVICE, WORKER, Namespace, process_of
from kubernetes_manifests import patch_of

pytestmark = [pytest.mark.containers, pytest.mark.kubernetes]

PROBLEM = "application/problem+json"
JOB = "bookmarks.find_duplicates"
JOBS = 60
# A test shortens the periods of 10 s, and the 40 s to SIGKILL: a frozen process gets no SIGTERM.
FAST_LIVENESS = patch_of(
    "Deployment",
    SERVICE,
    "apps/v1",
    spec={
        "template": {
            "spec": {
                "terminationGracePeriodSeconds": 10,
                "containers": [
                    {"name": "server", "livenessProbe": {"periodSeconds": 2, "timeoutSeconds": 2}}
                ],
            }
        }
    },
)
# Each job takes a while, so that some are in flight at any time. Its effect is counted in the
# transaction that stores the result.
COUNT_EFFECTS = """
CREATE TABLE effects (job uuid NOT NULL);
CREATE FUNCTION count_effect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(1);
    INSERT INTO effects VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER count_effect AFTER UPDATE ON jobs
    FOR EACH ROW WHEN (NEW.status = 'succeeded') EXECUTE FUNCTION count_effect();
"""
DROP_EFFECTS = "DROP FUNCTION IF EXISTS count_effect CASCADE; DROP TABLE IF EXISTS effects"
UNFINISHED = "SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')"
RUNNING = "SELECT count(*) FROM jobs WHERE status = 'running'"


def pod_named(service: Namespace, name: str) -> Any:
    return service.get("pod", name)


def starts_of(service: Namespace) -> set[tuple[str, str]]:
    """Return the container of each pod with its start, also of the worker."""
    return {
        (pod["metadata"]["name"], status["containerID"])
        for pod in service.pods() + service.pods("worker")
        for status in pod["status"]["containerStatuses"]
    }


def test_deleted_pod_under_load_loses_no_request(service: Namespace) -> None:
    victim = min(service.endpoints())
    with service.load() as load, service.load(**NEW_CONNECTIONS) as others:
        time.sleep(1)
        started = time.monotonic()
        service.kubectl("delete", "pod", victim, "--wait=false")
        left = wait_until(lambda: victim not in service.endpoints(), seconds=30)
        wait_until(lambda: len(service.endpoints()) == 2, seconds=60)
        replaced = time.monotonic() - started
        wait_until(lambda: victim not in service.running(), seconds=60)
        time.sleep(1)
    record(f"Kubernetes, pod deleted, out of the endpoints after {left:.1f} s, successor ready "
        f"after {replaced:.1f} s: {load.summary()}; on new connections: "
        f"{others.summary()}")  # fmt: skip
    assert load.failed == others.failed == []


def test_frozen_process_leaves_the_endpoints_and_is_restarted(service: Namespace) -> None:
    service.overlay.patches.append(FAST_LIVENESS)
    service.roll_out()
    name = min(service.endpoints())
    pod = pod_named(service, name)
    process = process_of(pod)
    frozen_at = time.monotonic()
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: name not in service.endpoints(), seconds=60, of="no endpoint")
    left = time.monotonic() - frozen_at
    served = [service.ask("/bookmarks").status for _ in range(20)]
    wait_until(lambda: service.restarts() == 1, seconds=90, of="a restart")
    restarted = time.monotonic() - frozen_at
    wait_until(lambda: name in service.endpoints(), seconds=60, of="the endpoint again")
    back = time.monotonic() - frozen_at
    events = service.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")
    after = pod_named(service, name)
    assert process_of(after) != process
    record(f"Kubernetes, frozen process: out of the endpoints after {left:.1f} s, restarted after "
        f"{restarted:.1f} s, an endpoint again after {back:.1f} s")  # fmt: skip
    assert "Liveness probe failed" in events
    assert after["metadata"]["uid"] == pod["metadata"]["uid"], "a restart, not a new pod"
    assert set(served) == {200}, "the other pod serves"


def test_failed_readiness_leaves_the_endpoints_and_comes_back_without_restart(
    service: Namespace,
) -> None:
    before = starts_of(service)
    addresses = dict(service.endpoints())
    stopped_at = time.monotonic()
    service.kubectl("scale", "statefulset/database", "--replicas=0")
    try:
        wait_until(lambda: service.endpoints() == {}, seconds=90, of="no endpoint")
        left = time.monotonic() - stopped_at
        time.sleep(10)  # a liveness probe
        urls = [f"http://{ip}:8000" for ip in addresses.values()]
        lives = {ask(f"{url}/health/live").status for url in urls}
        ready = {ask(f"{url}/health/ready").status for url in urls}
    finally:
        service.kubectl("scale", "statefulset/database", "--replicas=1")
    service.kubectl("rollout", "status", "statefulset/database", "--timeout=90s")
    back = wait_until(lambda: service.endpoints() == addresses, seconds=60, of="both endpoints")
    record(f"Kubernetes, no database: out of the endpoints after {left:.1f} s, endpoints again "
        f"{back:.1f} s after the database was ready")  # fmt: skip
    assert lives == {200}
    assert ready == {503}
    assert starts_of(service) == before, "nothing was restarted"
    assert service.ask("/bookmarks").status == 200


def test_restarted_database_returns_503_and_recovers_without_restart(service: Namespace) -> None:
    before = starts_of(service)
    rows = int(service.psql("SELECT count(*) FROM bookmarks"))
    database = pod_named(service, "database-0")["metadata"]["uid"]

    def is_ready_again() -> bool:
        pods = service.get("pods", "--selector", "app.kubernetes.io/name=database")["items"]
        return any(
            pod["metadata"]["uid"] != database
            and {"type": "Ready", "status": "True"}.items() <= condition.items()
            for pod in pods
            for condition in pod["status"].get("conditions", [])
        )

    with service.load() as load:
        time.sleep(1)
        deleted_at = time.monotonic()
        service.kubectl("delete", "pod", "database-0", "--wait=false")
        wait_until(is_ready_again, seconds=90, of="the database")
        back_at = time.monotonic()
        time.sleep(5)
    recovered = load.recovered_after(back_at)
    record(f"Kubernetes, database pod deleted, ready again after {back_at - deleted_at:.1f} s: "
        f"{load.summary()}; last failure {recovered:.2f} s after that")  # fmt: skip
    assert load.failed
    assert {(outcome.status, outcome.kind) for outcome in load.failed} == {(503, PROBLEM)}
    assert recovered < 4
    assert starts_of(service) == before
    stored = int(service.psql("SELECT count(*) FROM bookmarks")) - rows
    assert len(load.created) <= stored, "no committed row is lost"


def test_killed_and_deleted_workers_lose_no_job_and_repeat_none(service: Namespace) -> None:
    service.psql("DELETE FROM jobs")
    service.psql(COUNT_EFFECTS)
    in_flight = []
    try:
        for number in range(JOBS):
            page = {"url": f"https://example.com/job/{number}", "title": "A page"}
            assert service.ask("/bookmarks", method="POST", body=page).status == 201
        accepted_at = time.monotonic()
        (pod,) = service.pods("worker")
        restarts = service.restarts("worker")
        os.kill(process_of(pod), signal.SIGKILL)
        in_flight.append(int(service.psql(RUNNING)))
        wait_until(lambda: service.restarts("worker") > restarts, seconds=60, of="a restart")
        wait_for_worker(service)
        wait_until(lambda: service.psql(RUNNING) != "0", seconds=60, of="running jobs")
        in_flight.append(int(service.psql(RUNNING)))
        service.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        wait_for_worker(service, other_than=pod["metadata"]["uid"])
        # A killed worker is taken for dead after 30 s.
        wait_until(lambda: service.psql(UNFINISHED) == "0", seconds=240, of="all jobs done")
        seconds = time.monotonic() - accepted_at
        jobs = int(service.psql(f"SELECT count(*) FROM jobs WHERE name = '{JOB}'"))  # noqa: S608 - a constant
        effects = service.psql("SELECT count(*), count(DISTINCT job) FROM effects").split("|")
        statuses = service.psql("SELECT DISTINCT status FROM jobs")
    finally:
        service.psql(DROP_EFFECTS)
    record(f"Kubernetes, worker killed with {in_flight[0]} jobs in flight and deleted with "
        f"{in_flight[1]}: {jobs} jobs, all done {seconds:.1f} s after the last was accepted, none "
        "lost, none twice")  # fmt: skip
    assert min(in_flight) > 0
    assert statuses == "succeeded"
    assert jobs == JOBS
    assert effects == [str(jobs), str(jobs)]


def wait_for_worker(service: Namespace, other_than: str = "") -> None:
    def is_there() -> bool:
        return any(
            pod["metadata"]["uid"] != other_than and status.get("ready")
            for pod in service.pods("worker")
            for status in pod["status"].get("containerStatuses", [])
        )

    wait_until(is_there, seconds=90, of=f"a ready pod of {WORKER}")
