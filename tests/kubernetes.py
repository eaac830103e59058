"""Namespaces of a cluster with a baked service.

Tests create namespaces of their own, and delete them with their volumes.
"""

import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from engine import Answer, Load, ask, docker, wait_until
from kubernetes_cluster import (
    attempt_kubectl,
    cached_user_id,
    delete_namespace,
    is_served,
    kubectl,
)
from kubernetes_manifests import Manifest, Overlay, Substitution, patch_of, substitute

SERVICE = "example-service"
WORKER = "example-service-worker"
MIGRATION = "example-service-migration"
# A test has at most two replicas, except that of the autoscaler: the load would start more of them,
# at a time that a test does not choose.
TWO_REPLICAS = patch_of(
    "HorizontalPodAutoscaler", SERVICE, "autoscaling/v2", spec={"maxReplicas": 2}
)
# The containers of several namespaces fit on a node of two cores.
SMALL_REQUESTS = [
    patch_of(
        "Deployment",
        name,
        "apps/v1",
        spec={
            "template": {
                "spec": {
                    "containers": [{"name": container, "resources": {"requests": {"cpu": "100m"}}}]
                }
            }
        },
    )
    for name, container in ((SERVICE, "server"), (WORKER, "worker"))
]
# Each request opens a connection, which a pod that has stopped would refuse.
NEW_CONNECTIONS: dict[str, Any] = {"Connection": "close", "connections": 8}
READY_SECONDS = 120  # for a roll-out. Generous: it bounds hangs


@dataclass(frozen=True)
class FirstRollout:
    """The roll-out to an empty database: `logs` are those of its pods, by name."""

    seconds_to_migrated: float
    seconds_to_served: float
    logs: dict[str, str]
    restarts: int


class Namespace:
    """A namespace with a baked service and its servers.

    Args:
        manifests: the service's deploy/kubernetes. It is copied.
        folder: for the copy.
    """

    def __init__(self, manifests: Path, folder: Path, tag: str) -> None:
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        copied = Path(shutil.copytree(manifests, folder / self.name))
        self.overlay = Overlay(copied, self.name, tag, patches=[TWO_REPLICAS, *SMALL_REQUESTS])
        self.substitutions: list[Substitution] = []
        self.first_rollout: FirstRollout | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        delete_namespace(self.name)

    def _filters(self, **labels: str) -> list[str]:
        """Return options of `docker ps` for the containers of the namespace."""
        labels = {"pod.namespace": self.name, **labels}
        pairs = [f"label=io.kubernetes.{name}={value}" for name, value in labels.items()]
        return [word for pair in pairs for word in ("--filter", pair)]

    def attempt(
        self, *arguments: str, text: str | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        return attempt_kubectl("--namespace", self.name, *arguments, text=text, timeout=timeout)

    def kubectl(self, *arguments: str, text: str | None = None, timeout: float = 180) -> str:
        return kubectl("--namespace", self.name, *arguments, text=text, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    # --- roll-outs ---

    def render(self) -> list[Manifest]:
        manifests, self.substitutions = substitute(
            self.overlay.render(), is_served=is_served, user_id=cached_user_id
        )
        return manifests

    def apply(self, manifests: list[Manifest]) -> None:
        kubectl("apply", "--filename", "-", text=yaml.safe_dump_all(manifests))

    def start_migration(self) -> None:
        """Apply all but the service and the worker, and start the Job anew."""
        first = [m for m in self.render() if not is_of_release(m)]
        (namespace,) = [m for m in first if m["kind"] == "Namespace"]
        self.apply([namespace])
        self.kubectl("delete", "job", MIGRATION, "--ignore-not-found")
        self.apply(first)

    def job_status(self, name: str) -> str:
        """Return "Complete" or "Failed", or an empty text while the Job runs."""
        conditions = self.get("job", name)["status"].get("conditions", [])
        return next((c["type"] for c in conditions if c["status"] == "True"), "")

    def finish_job(self, name: str) -> str:
        """Wait until a Job has ended, and return how."""
        wait_until(lambda: self.job_status(name), seconds=READY_SECONDS, of=f"end of {name}")
        return self.job_status(name)

    def roll_out_first(self) -> None:
        """Start the servers with an empty database, migrate it, roll out, and measure the time."""
        started = time.monotonic()
        self.start_migration()
        assert self.finish_job(MIGRATION) == "Complete", self.logs(f"job/{MIGRATION}")
        migrated = time.monotonic() - started
        self.roll_out(wait=False)
        wait_until(lambda: self.ask("/bookmarks").status == 200, seconds=READY_SECONDS)
        served = time.monotonic() - started
        self.wait_for_rollout()
        restarts = self.restarts() + self.restarts("worker")
        self.first_rollout = FirstRollout(migrated, served, self.logs_of_pods(), restarts)

    def deploy(self, tag: str) -> float:
        """Migrate with a Job, roll out the service, and return the seconds that both took."""
        started = time.monotonic()
        self.overlay.tag = tag
        self.start_migration()
        assert self.finish_job(MIGRATION) == "Complete", self.logs(f"job/{MIGRATION}")
        self.roll_out()
        return time.monotonic() - started

    def roll_out(self, tag: str = "", *, wait: bool = True) -> float:
        """Apply the service and the worker without the Job, and return the seconds it took."""
        started = time.monotonic()
        self.overlay.tag = tag or self.overlay.tag
        self.apply([m for m in self.render() if m["kind"] != "Job"])
        if wait:
            self.wait_for_rollout()
        return time.monotonic() - started

    def wait_for_rollout(self) -> None:
        """Wait until each Deployment has its new pods, and the autoscaler its two replicas."""
        for name in (SERVICE, WORKER):
            limit = f"--timeout={READY_SECONDS}s"
            self.kubectl(
                "rollout", "status", f"deployment/{name}", limit, timeout=READY_SECONDS + 9
            )
        wait_until(lambda: len(self.endpoints()) == 2, seconds=READY_SECONDS, of="two endpoints")
        wait_until(
            lambda: len(self.running()) == 2, seconds=READY_SECONDS, of="the end of old pods"
        )

    # --- pods ---

    def pods(self, component: str = "server") -> list[Any]:
        """Return the pods that are not being deleted."""
        label = f"app.kubernetes.io/component={component}"
        items = self.get("pods", "--selector", label)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def running(self, container: str = "server") -> dict[str, str]:
        """Return the running containers of this name, by pod, also of pods that are being deleted.

        An object of a pod may remain for a minute after its containers have ended.
        """
        filters = self._filters(**{"container.name": container})
        shown = '{{.Label "io.kubernetes.pod.name"}} {{.ID}}'
        lines = docker("ps", *filters, "--format", shown).splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def endpoints(self) -> dict[str, str]:
        """Return the address of each pod that gets requests, by name."""
        subsets = self.get("endpoints", SERVICE).get("subsets") or []
        return {
            address["targetRef"]["name"]: address["ip"]
            for subset in subsets
            for address in subset.get("addresses", [])
        }

    @contextmanager
    def watched_endpoints(self) -> Iterator[list[int]]:
        """Yield the numbers of pods that get requests, read over and over until the block ends."""
        seen: list[int] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.3):
                seen.append(len(self.endpoints()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    def restarts(self, component: str = "server") -> int:
        return sum(
            status["restartCount"]
            for pod in self.pods(component)
            for status in pod["status"].get("containerStatuses", [])
        )

    def logs(self, target: str, *options: str) -> str:
        return self.attempt("logs", target, *options).stdout

    def logs_of_pods(self) -> dict[str, str]:
        """Return the logs of the pods with the service's image, by name."""
        pods = [pod for part in ("server", "worker", "migration") for pod in self.pods(part)]
        names = [pod["metadata"]["name"] for pod in pods]
        return {name: self.logs(f"pod/{name}") for name in names}

    def address(self, service: str = SERVICE) -> str:
        return str(self.get("service", service)["spec"]["clusterIP"])

    def ask(self, path: str, **options: Any) -> Answer:
        return ask(f"http://{self.address()}{path}", **options)

    def load(self, **options: Any) -> Load:
        return Load(self.address(), 80, **options)

    def commits(self) -> set[str]:
        """Return the commits of the versions that get requests."""
        answers = [ask(f"http://{ip}:8000/health") for ip in self.endpoints().values()]
        return {answer.json()["commit"] for answer in answers}

    def psql(self, statement: str, database: str = "app") -> str:
        return self.kubectl(
            "exec", "database-0", "--",
            "psql", "-U", "app", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc", statement,
        )  # fmt: skip


def is_of_release(manifest: Manifest) -> bool:
    """Return whether an object belongs to the service or the worker: the Job comes before them."""
    name, kind = manifest["metadata"]["name"], manifest["kind"]
    return name in {SERVICE, WORKER} and kind in {
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "Service",
    }


def container_of(pod: Any) -> str:
    """Return the id of the container that runs in a pod."""
    (status,) = pod["status"]["containerStatuses"]
    runtime, _, name = status["containerID"].partition("://")
    assert runtime == "docker", f"the tests find processes of pods with Docker, not {runtime}"
    return str(name)


def process_of(pod: Any) -> int:
    """Return the id of the first process of a pod on this machine."""
    return int(docker("inspect", "--format", "{{.State.Pid}}", container_of(pod)))
