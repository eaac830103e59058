"""Deploy an image to a Kubernetes cluster: migrate the database, roll out, test, undo on failure.

    python scripts/deploy_to_kubernetes.py deploy/kubernetes/overlays/staging IMAGE@sha256:...

It runs kubectl with the current kubeconfig. If the migration fails, no pod is replaced. If the new
pods do not become ready, or the smoke test fails, the earlier pods are restored.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "example-service"
MIGRATION = f"{NAME}-migration"
DEPLOYMENTS = [NAME]
DEPLOYMENTS += [f"{NAME}-worker"]  # option: worker

BEFORE_THE_ROLL_OUT = "app.kubernetes.io/component notin (server,worker,backup)"
CHANGE_CAUSE = "kubernetes.io/change-cause"  # `kubectl rollout history` shows it
REVISION = "deployment.kubernetes.io/revision"
IMAGE = re.compile(r"(?P<name>[^\s@]+)@(?P<digest>sha256:[0-9a-f]{64})")
NAMESPACE = re.compile(r"^namespace: *(\S+)", re.MULTILINE)
UNKNOWN_KIND = re.compile(r'no matches for kind "(\w+)"')
MIGRATION_SECONDS = 1260  # longer than activeDeadlineSeconds in base/migration.yaml
ROLL_OUT_SECONDS = 600  # longer than progressDeadlineSeconds in base/deployment.yaml
UNDO_SECONDS = 300
PAUSE_SECONDS = 2.0


class NotDeployed(Exception):
    """The deployment failed, for the reason in the message."""


class Cluster:
    """A namespace of a cluster, through kubectl."""

    def __init__(self, overlay: Path) -> None:
        """Read the namespace of an overlay.

        Raises:
            NotDeployed: the overlay does not exist, or has no namespace.
        """
        self._overlay = overlay
        try:
            found = NAMESPACE.search((overlay / "kustomization.yaml").read_text(encoding="utf-8"))
        except OSError as error:
            raise NotDeployed(f"{overlay} is not an overlay: {error}") from error
        if not found:
            raise NotDeployed(f"{overlay}/kustomization.yaml sets no namespace")
        self._namespace = found[1]

    def run(self, *arguments: str, shows: bool = True) -> str:
        """Run kubectl in the namespace, and return its standard output if it is not shown.

        Raises:
            NotDeployed: the command failed. Its errors have been printed.
        """
        command = ["kubectl", "--namespace", self._namespace, *arguments]
        if shows:
            print("$", *command, flush=True)
        output = None if shows else subprocess.PIPE
        try:
            result = subprocess.run(
                command, check=False, text=True, stdout=output, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise NotDeployed(f"kubectl: {error}") from error
        print(result.stderr, end="", file=sys.stderr, flush=True)
        if result.returncode:
            raise NotDeployed(self._reason(arguments[0], result.stderr))
        return result.stdout or ""

    def _reason(self, command: str, errors: str) -> str:
        kinds = sorted(set(UNKNOWN_KIND.findall(errors)))
        if not kinds:
            lines = errors.strip().splitlines() or ["no error message"]
            return f"kubectl {command}: {lines[-1]}"
        components = {
            path.parent.name
            for path in (self._overlay.parent.parent / "components").rglob("*.yaml")
            if any(f"kind: {kind}\n" in path.read_text(encoding="utf-8") for kind in kinds)
        }
        return (
            f"the cluster has no kind {', '.join(kinds)}: install the operator that defines it, or"
            f" remove components/{', '.join(sorted(components))} from {self._overlay.name}"
        )

    def show(self, *arguments: str) -> None:
        """Run kubectl for its output. A failure is printed, and is no error."""
        try:
            self.run(*arguments)
        except NotDeployed as error:
            print(error, file=sys.stderr, flush=True)

    def show_pods(self) -> None:
        self.show("get", "pods", "--output=wide")
        self.show("get", "events", "--sort-by=.metadata.creationTimestamp")
        self.show("logs", f"--selector=app.kubernetes.io/name={NAME}", "--prefix", "--tail=20")

    def revisions(self) -> dict[str, str]:
        """Return the revision of each Deployment that exists."""
        items = json.loads(self.run("get", "deployments", "--output=json", shows=False))["items"]
        found = [item["metadata"] for item in items if item["metadata"]["name"] in DEPLOYMENTS]
        return {
            metadata["name"]: metadata["annotations"][REVISION]
            for metadata in found
            if REVISION in metadata.get("annotations", {})
        }


@contextmanager
def customized(overlay: Path, image: str, cause: str) -> Iterator[str]:
    """Yield a folder for `kubectl apply -k`: the overlay with the image and the change cause.

    Kustomize accepts only relative paths to other folders, so this one is beside the overlay.

    Raises:
        NotDeployed: the image has no digest, or the folder cannot be written.
    """
    found = IMAGE.fullmatch(image)
    if not found:
        raise NotDeployed(f"{image!r} is not an image with a digest (name@sha256:...)")
    metadata = {"name": "any", "annotations": {CHANGE_CAUSE: cause}}
    annotated = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{overlay.name}"],
        "images": [{"name": NAME, "newName": found["name"], "digest": found["digest"]}],
        "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(annotated)}],
    }
    try:
        with tempfile.TemporaryDirectory(prefix=".deployment-", dir=overlay.parent) as folder:
            (Path(folder) / "kustomization.yaml").write_text(json.dumps(document), encoding="utf-8")
            yield folder
    except OSError as error:
        raise NotDeployed(str(error)) from error


def migrate(cluster: Cluster, folder: str) -> None:
    """Apply the configuration and the migration Job, and wait until the Job is complete.

    Raises:
        NotDeployed: the API server refused a manifest, or the Job failed or timed out. No pod was
            replaced.
    """
    # A Job cannot be changed, so an earlier one is deleted.
    cluster.run("delete", "job", MIGRATION, "--ignore-not-found")
    # The API server checks every manifest before the first change.
    cluster.run("apply", "-k", folder, "--dry-run=server", shows=False)
    cluster.run("apply", "-k", folder, f"--selector={BEFORE_THE_ROLL_OUT}")
    # Not `kubectl wait`: it waits for one condition, and the Job ends with one of two.
    deadline = time.monotonic() + MIGRATION_SECONDS
    conditions: set[str] = set()
    while not conditions & {"Complete", "Failed"} and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        job = json.loads(cluster.run("get", "job", MIGRATION, "--output=json", shows=False))
        met = job.get("status", {}).get("conditions") or []
        conditions = {condition["type"] for condition in met if condition["status"] == "True"}
    if "Complete" not in conditions:
        cluster.show("logs", f"job/{MIGRATION}", "--tail=100")
        cluster.show_pods()
        state = "failed" if conditions else f"did not end within {MIGRATION_SECONDS} s"
        raise NotDeployed(f"the migration {state}; no pod was replaced")


def roll_out(cluster: Cluster, folder: str, seconds: int) -> None:
    """Apply every manifest, and wait until each Deployment runs the new version.

    Raises:
        NotDeployed: kubectl failed, or the new pods did not become ready in time.
    """
    cluster.run("apply", "-k", folder)
    for name in DEPLOYMENTS:
        cluster.run("rollout", "status", f"deployment/{name}", f"--timeout={seconds}s")


def smoke_test(url: str, commit: str | None, seconds: float) -> None:
    """Run the smoke test.

    Raises:
        NotDeployed: it failed. Its output has been printed.
    """
    command = [sys.executable, str(Path(__file__).with_name("smoke_test.py")), url]
    if commit:
        command += ["--commit", commit]
    if subprocess.run([*command, "--wait", str(seconds)], check=False).returncode:
        raise NotDeployed("the smoke test failed")


def undo(cluster: Cluster, revisions: dict[str, str]) -> str:
    """Restore the revision of each Deployment, and return a description of the result."""
    if not revisions:
        return "this is the first deployment, so there is no earlier version to restore"
    try:
        for name, revision in revisions.items():
            cluster.run("rollout", "undo", f"deployment/{name}", f"--to-revision={revision}")
        for name in revisions:
            cluster.run("rollout", "status", f"deployment/{name}", f"--timeout={UNDO_SECONDS}s")
    except NotDeployed as error:
        return f"the earlier version was NOT restored: {error}"
    return "the earlier version is restored"


def deploy(arguments: argparse.Namespace) -> None:
    """Deploy an image.

    Raises:
        NotDeployed: a step failed. The message says whether the earlier version is restored.
    """
    cluster = Cluster(arguments.overlay)
    cause = f"commit {arguments.commit}" if arguments.commit else arguments.image
    with customized(arguments.overlay, arguments.image, cause) as folder:
        migrate(cluster, folder)
        revisions = cluster.revisions()
        try:
            roll_out(cluster, folder, arguments.roll_out_seconds)
            if arguments.url:
                smoke_test(arguments.url, arguments.commit, arguments.wait)
        except NotDeployed as error:
            cluster.show_pods()
            raise NotDeployed(f"{error}; {undo(cluster, revisions)}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("overlay", type=Path, help="folder of the overlay")
    parser.add_argument("image", help="image with its digest")
    parser.add_argument("--url", help="public URL, for the smoke test")
    parser.add_argument("--commit", help="commit that the image contains")
    parser.add_argument("--wait", type=float, default=300, help="seconds for the smoke test")
    parser.add_argument("--roll-out-seconds", type=int, default=ROLL_OUT_SECONDS)
    try:
        deploy(parser.parse_args())
    except NotDeployed as error:
        sys.exit(f"not deployed: {error}")
    print("deployed")


if __name__ == "__main__":
    main()
