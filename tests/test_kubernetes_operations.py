"""A baked service on a real cluster: substitutions, security, evictions, scaling and backups.

Without a cluster these tests are skipped; see `make test-kubernetes`.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from engine import docker, record, wait_until
from kubernetes import SERVICE, Namespace, container_of, process_of
from kubernetes_cluster import is_served, kubectl, why_not_usable
from kubernetes_manifests import (
    OLDER_VERSIONS,
    PUBLIC_USER_ID,
    Substitution,
    differences,
    patch_of,
    substitute,
)

pytestmark = [pytest.mark.containers, pytest.mark.kubernetes]

BACKUP = "example-service-backup"
RESTORE = """
set -eu
createdb --maintenance-db="$DATABASE_URL" restored
pg_restore --exit-on-error --no-owner --dbname="${DATABASE_URL%/*}/restored" /backups/*.dump
"""
ROWS = "SELECT * FROM bookmarks ORDER BY id"
SHORT_WINDOW = {"scaleDown": {"stabilizationWindowSeconds": 10}}


# --- the cluster of the tests ---------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("context", "server", "is_usable"),
    [
        ("production", "https://192.0.2.1:6443", False),
        ("production", "https://127.0.0.1:6443", True),
        ("kind-test", "https://192.0.2.1:6443", True),
    ],
)
def test_cluster_of_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str, server: str, *, is_usable: bool
) -> None:
    config = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(config))
    named = {"name": "a", "cluster": {"server": server}}
    contexts = [{"name": context, "context": {"cluster": "a", "user": ""}}]
    kinds = {"apiVersion": "v1", "kind": "Config", "current-context": context}
    config.write_text(json.dumps({**kinds, "clusters": [named], "contexts": contexts}))
    reason = why_not_usable()
    assert (reason == "") == is_usable
    assert is_usable or "192.0.2.1" in reason


# --- substitutions --------------------------------------------------------------------------------


def test_only_listed_values_are_substituted(deployed: Namespace) -> None:
    rendered, applied = deployed.overlay.render(), deployed.render()
    found = {
        (old["kind"], path, before, after)
        for old, new in zip(rendered, applied, strict=True)
        for path, before, after in differences(old, new)
    }
    listed = {(s.kind, s.path, s.old, s.new) for s in deployed.substitutions}
    assert found == listed
    versions = {(kind, "apiVersion", new, old) for kind, new, old in OLDER_VERSIONS}
    for kind, path, old, new in found:
        is_user = old == PUBLIC_USER_ID and re.search(r"\.(runAsUser|runAsGroup|fsGroup)$", path)
        assert is_user or (kind, path, old, new) in versions
        assert is_user or not is_served(kind, str(old))
    record(f"Kubernetes {server_version()}, substitutions: "
        + (", ".join(sorted({f"{kind} {old} by {new}" for kind, _, old, new in found})) or "none")
    )  # fmt: skip


def server_version() -> str:
    version = json.loads(kubectl("version", "--output", "json"))
    return str(version["serverVersion"]["gitVersion"])


def test_current_server_with_public_images_gets_the_manifests_as_they_are(
    deployed: Namespace,
) -> None:
    rendered = deployed.overlay.render()
    current = substitute(rendered, is_served=lambda *_: True, user_id=lambda *_: PUBLIC_USER_ID)
    assert current == (rendered, [])
    older, made = substitute(
        rendered, is_served=lambda *_: False, user_id=lambda *_: PUBLIC_USER_ID
    )
    assert {(s.kind, s.old, s.new) for s in made} == set(OLDER_VERSIONS)
    assert {m["kind"] for m in older} >= {kind for kind, *_ in OLDER_VERSIONS}
    assert all(isinstance(s, Substitution) and s.path == "apiVersion" for s in made)


# --- security -------------------------------------------------------------------------------------


def test_running_containers_are_locked_down(service: Namespace) -> None:
    (_, *_), (worker,) = service.pods(), service.pods("worker")
    for pod in (*service.pods(), worker):
        details = json.loads(docker("inspect", container_of(pod)))[0]
        host = details["HostConfig"]
        assert details["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Privileged"] is False
        options = host["SecurityOpt"]
        assert "no-new-privileges" in options
        assert not [option for option in options if "unconfined" in option]
        mounts = {mount["Destination"] for mount in details["Mounts"]}
        assert not [path for path in mounts if path.startswith("/var/run/secrets")], mounts
        status = status_of(process_of(pod))
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2", "a filter"


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# --- disruption, scaling and backup ---------------------------------------------------------------


def evict(service: Namespace, pod: str) -> Any:
    """Ask for the eviction of a pod, as `kubectl drain` does."""
    core = json.loads(kubectl("get", "--raw", "/api/v1"))
    (found,) = (r for r in core["resources"] if r["name"] == "pods/eviction")
    body = {
        "apiVersion": f"{found['group']}/{found['version']}",
        "kind": found["kind"],
        "metadata": {"name": pod, "namespace": service.name},
    }
    path = f"/api/v1/namespaces/{service.name}/pods/{pod}/eviction"
    return service.attempt("create", "--raw", path, "--filename", "-", text=json.dumps(body))


def test_eviction_is_refused_by_the_budget_until_another_pod_is_ready(service: Namespace) -> None:
    one, other = sorted(service.endpoints())
    with service.load() as load:
        time.sleep(1)
        started = time.monotonic()
        first = evict(service, one)
        second = evict(service, other)
        refusals = 1

        def accepted() -> bool:
            nonlocal refusals
            result = evict(service, other)
            refusals += result.returncode != 0
            return result.returncode == 0

        wait_until(accepted, seconds=90, of="the second eviction")
        seconds = time.monotonic() - started
        service.wait_for_rollout()
        time.sleep(1)
    record(f"Kubernetes, two evictions: the budget accepted the second after {seconds:.1f} s and "
        f"{refusals} refusals; {load.summary()}")  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert second.returncode != 0
    assert "TooManyRequests" in second.stderr, "429"
    assert "disruption budget" in second.stderr
    assert load.failed == []
    assert set(service.endpoints()).isdisjoint({one, other})


def test_dump_of_the_scheduled_backup_restores_the_same_rows(service: Namespace) -> None:
    for number in range(20):
        page = {"url": f"https://example.com/row/{number}", "title": f"Größe {number}"}
        assert service.ask("/bookmarks", method="POST", body=page).status == 201
    before = service.psql(ROWS)
    assert before.count("\n") >= 19
    # As `kubectl create job --from` does, which refuses the v1beta1 of older servers.
    started = time.monotonic()
    job = service.get("cronjob", BACKUP)["spec"]["jobTemplate"]["spec"]
    backup = patch_of("Job", "backup", "batch/v1", spec=job)
    service.kubectl("create", "--filename", "-", text=json.dumps(backup))
    assert service.finish_job("backup") == "Complete", service.logs("job/backup")
    seconds = time.monotonic() - started
    assert re.search(r" /backups/\S+\.dump$", service.logs("job/backup").strip())
    job["template"]["spec"]["containers"][0]["args"] = [RESTORE]
    restore = patch_of("Job", "restore", "batch/v1", spec=job)
    service.kubectl("create", "--filename", "-", text=json.dumps(restore))
    assert service.finish_job("restore") == "Complete", service.logs("job/restore")
    assert service.psql(ROWS, database="restored") == before
    record(f"Kubernetes, backup: {before.count(chr(10)) + 1} rows dumped in {seconds:.1f} s, and "
        "the same in the restored database")  # fmt: skip


@pytest.mark.thorough
def test_autoscaler_adds_replicas_under_load_and_removes_them(service: Namespace) -> None:
    """Allow four replicas, and wait 10 s instead of 5 minutes before their number is reduced."""
    service.overlay.patches.append(patch_of(
        "HorizontalPodAutoscaler", SERVICE, "autoscaling/v2",
        spec={"maxReplicas": 4, "behavior": SHORT_WINDOW},
    ))  # fmt: skip
    service.roll_out()
    with service.load(pause_seconds=0) as load:
        grown = wait_until(lambda: len(service.endpoints()) == 4, seconds=180, of="4 replicas")
    with service.load(connections=1, pause_seconds=0.5) as light:
        shrunk = wait_until(lambda: len(service.endpoints()) == 2, seconds=240, of="2 replicas")
        wait_until(lambda: len(service.running()) == 2, seconds=60)
    record(f"Kubernetes, autoscaler: 2 to 4 ready replicas after {grown:.1f} s of load, "
        f"back to 2 {shrunk:.1f} s after it; {load.summary()}")  # fmt: skip
    assert load.failed == []
    assert light.failed == []
