"""The deployment jobs of the pipelines, on the cluster of KUBECONFIG; pipelines.py runs them.

Replaced are: the identity tokens, by the token of a ServiceAccount that is bound to the same Role
(the API server of the tests trusts no pipeline); the registry, by one on this machine; the public
URL, by the address of the Service; API versions that the cluster lacks, see kubectl_for_cluster.py.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import engine
import pytest
import yaml
from conftest import Bake
from kubernetes import MIGRATION, SERVICE, WORKER
from kubernetes_cluster import (
    attempt_kubectl,
    cached_user_id,
    delete_namespace,
    is_served,
    kubectl,
)
from kubernetes_manifests import substitute
from pipelines import GitHub, GitLab, Job, Machine, logs_of
from registry import Registry, running_registry

pytestmark = [
    pytest.mark.containers,
    pytest.mark.kubernetes,
    pytest.mark.thorough,
    pytest.mark.usefixtures("cluster"),
]

PASSWORD = "of-this-test"
BASE = "test-pipelines:base"
ANSWERS = {"deploy": "kubernetes", "worker": "postgres", "redis": False, "auth": "none"}
# The machine of the tests has two cores, and the limits of the service are for more.
PATCHES = """
  - target: { kind: Deployment }
    patch: |
      - { op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 20m }
      - { op: replace, path: /spec/progressDeadlineSeconds, value: 30 }
  - target: { kind: HorizontalPodAutoscaler }
    patch: |
      - { op: replace, path: /spec/minReplicas, value: 1 }
      - { op: replace, path: /spec/maxReplicas, value: 1 }
  - target: { kind: Service }
    patch: |
      - { op: add, path: /spec/clusterIP, value: ADDRESS }
"""
FAILING_MIGRATION = """
from alembic import op

revision = "9000"
down_revision = "{last}"


def upgrade() -> None:
    op.execute("SELECT 1 / 0")
"""


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_image(
    cluster: None,  # noqa: ARG001 - requires the cluster before it builds an image
    bake: Bake,
) -> Iterator[str]:
    project = bake(lock=True, metrics=False, **ANSWERS).path
    engine.docker("build", "--quiet", "--tag", BASE, str(project), timeout=900)
    yield BASE
    engine.docker("image", "rm", "--force", BASE)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server
    listing = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    ids = {line.split()[1] for line in listing.splitlines() if line.startswith(server.address)}
    if ids:
        engine.docker("image", "rm", "--force", *ids)


# --- environments ---------------------------------------------------------------------------------


@contextmanager
def identity_provider(token: str, audience: str) -> Iterator[str]:
    """Run a stand-in of GitHub's server for identity tokens, and yield the URL that a job gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = parse_qs(urlsplit(self.path).query).get("audience")
            is_known = self.headers["Authorization"] == "Bearer of-the-job"
            self.send_response(200 if is_known and wanted == [audience] else 403)
            self.end_headers()
            if is_known and wanted == [audience]:
                self.wfile.write(json.dumps({"value": token}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token?api-version=2.0"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Environment:
    """An environment of a baked service in a namespace, and the pipeline that deploys to it."""

    machine: Machine
    registry: Registry
    namespace: str
    name: str  # staging or production
    url: str
    server: str
    authority: str

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return kubectl("--namespace", self.namespace, *arguments, text=text)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def build(self, *lines: str, commit: str = "") -> str:
        """Commit, and publish an image of the commit. Returns the commit."""
        made = self.machine.commit()
        name = f"{self.registry.address}/acme/{SERVICE}:{made}"
        dockerfile = "\n".join([f"FROM {BASE}", f"ENV COMMIT_SHA={commit or made}", *lines])
        engine.docker("build", "--quiet", "--tag", name, "-", input=dockerfile)
        engine.docker("push", "--quiet", name)
        return made

    def deploy(self) -> dict[str, Job]:
        """Run the jobs of the pipeline that deploy to this environment."""
        variables = {
            f"{self.name.upper()}_URL": self.url,
            "KUBERNETES_SERVER": self.server,
            "KUBERNETES_CA": self.authority,
        }
        key = "deploy" if self.name == "production" else "deploy-staging"
        if (self.machine.repository / ".gitlab-ci.yml").exists():
            variables["CI_REGISTRY_IMAGE"] = f"{self.registry.address}/acme/{SERVICE}"
            return GitLab(self.machine, variables=variables).run(key, by_hand={})
        return GitHub(self.machine, variables=variables).run("ci.yml", only={key})

    def state(self) -> dict[str, Any]:
        """Return the image, the cause and the ready pods of each Deployment."""
        found = {}
        for name in (SERVICE, WORKER):
            deployment = self.get("deployment", name)
            found[name] = (
                deployment["spec"]["template"]["spec"]["containers"][0]["image"],
                deployment["metadata"]["annotations"]["kubernetes.io/change-cause"],
                deployment["status"].get("readyReplicas"),
            )
        return found

    def commit(self) -> str:
        return str(engine.ask(f"{self.url}/health").json()["commit"])


def free_address() -> str:
    """Return an address for a Service."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "service", "clusterip", name, "--tcp=80", "--namespace=default")
    try:
        return kubectl("get", "service", name, "--namespace=default",
                       "--output=jsonpath={.spec.clusterIP}")  # fmt: skip
    finally:
        kubectl("delete", "service", name, "--namespace=default")


def connection() -> tuple[str, str]:
    """Return the URL of the API server and its certificate authority, as the pipeline gets them."""
    view = kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")
    cluster = json.loads(view)["clusters"][0]["cluster"]
    return cluster["server"], cluster["certificate-authority-data"]


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for pattern, replacement in changes:
        text, count = re.subn(pattern, lambda _, new=replacement: new, text, flags=re.MULTILINE)
        assert count, f"{path} does not contain {pattern}"
    path.write_text(text)


def customize(repository: Path, name: str, namespace: str, address: str) -> None:
    """Edit the manifests of an environment, as a user does."""
    manifests = repository / "deploy" / "kubernetes"
    overlay = manifests / "overlays" / name
    edit(overlay / "kustomization.yaml", (r"^namespace: .*", f"namespace: {namespace}"),
         (r"\Z", PATCHES.replace("ADDRESS", address).lstrip("\n")))  # fmt: skip
    edit(overlay / "config.env", (r"^ALLOWED_HOSTS=.*", f"ALLOWED_HOSTS={address}"))
    administration = manifests / "administration"
    edit(administration / name / "kustomization.yaml",
         (r"^namespace: .*", f"namespace: {namespace}"),
         (r"value: git.*", f"value: system:serviceaccount:{namespace}:pipeline"))  # fmt: skip


def prepare(repository: Path, name: str, namespace: str) -> str:
    """Create what an administrator does, and a database. Returns the token of the pipeline."""
    administration = repository / "deploy" / "kubernetes" / "administration"
    kubectl("create", "namespace", namespace)
    kubectl("apply", "-k", str(administration / name))
    database = (administration.parent / "overlays" / "local" / "database.yaml").read_text()
    manifests, _ = substitute(
        yaml.safe_load_all(database.replace("value: development", f"value: {PASSWORD}")),
        is_served=is_served, user_id=cached_user_id,
    )  # fmt: skip
    kubectl("apply", "-f", "-", "--namespace", namespace, text=yaml.safe_dump_all(manifests))
    url = f"postgresql://app:{PASSWORD}@database:5432/app"
    kubectl("create", "secret", "generic", SERVICE, "--namespace", namespace,
            f"--from-literal=DATABASE_URL={url}")  # fmt: skip
    kubectl("create", "serviceaccount", "pipeline", "--namespace", namespace)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "pipeline",
            "annotations": {"kubernetes.io/service-account.name": "pipeline"},
        },
    }
    kubectl("apply", "-f", "-", "--namespace", namespace, text=json.dumps(secret))

    def token() -> str:
        return kubectl("get", "secret", "pipeline", "--namespace", namespace,
                       "--output=jsonpath={.data.token}")  # fmt: skip

    engine.wait_until(token, seconds=30, of="the token")
    return base64.b64decode(token()).decode()


@contextmanager
def new_environment(
    bake: Bake, folder: Path, registry: Registry, ci: str, name: str, **answers: object
) -> Iterator[Environment]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    repository = bake(lock=True, ci=ci, **{**ANSWERS, **answers}).copy_to(folder / "repository")
    address = free_address()
    customize(repository, name, namespace, address)
    machine = Machine(folder / "machine", repository, sys.executable)
    machine.git("init", "--quiet", "--initial-branch", "main")
    for program in ("apk", "gh"):
        machine.stand_in(program)
    docker = shutil.which("docker")
    real = f'"$(echo "$6" | sed "s|ghcr.io/acme|{registry.address}/acme|")"'
    inspect = f'exec {docker} "$1" "$2" "$3" "$4" "$5" {real}'
    machine.stand_in("docker", f'test "$1" = login || {inspect}')
    program = Path(__file__).with_name("kubectl_for_cluster.py")
    machine.stand_in("kubectl", f'PATH="{os.environ["PATH"]}" exec {sys.executable} {program} "$@"')
    machine.overrides["HEALTH_SECONDS"] = "8"
    machine.environment |= {
        "DOCKER_CONFIG": str(Path.home() / ".docker"),  # docker finds its plugins there
        "REPLACED_REGISTRY": f"{registry.address}/acme/",
        **{k: v for k, v in os.environ.items() if k.startswith("DOCKER_")},
    }
    try:
        token = prepare(repository, name, namespace)
        machine.identity_token = token
        server, authority = connection()
        with identity_provider(token, server) as machine.identity_url:
            yield Environment(
                machine, registry, namespace, name, f"http://{address}", server, authority
            )
    finally:
        delete_namespace(namespace)


@pytest.fixture(scope="module")
def staging(
    base_image: str,  # noqa: ARG001 - images are made from it
    bake: Bake,
    registry: Registry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Environment]:
    """Provide staging with a first version, which GitHub has deployed. Tests leave it healthy."""
    folder = tmp_path_factory.mktemp("staging")
    with new_environment(bake, folder, registry, "github", "staging", metrics=False) as environment:
        commit = environment.build()
        jobs = environment.deploy()
        assert {job.result for job in jobs.values()} == {"success"}, logs_of(jobs)
        assert environment.commit() == commit
        yield environment


# --- tests ----------------------------------------------------------------------------------------


def test_new_version_replaces_the_pods_by_digest(staging: Environment) -> None:
    commit = staging.build()
    jobs = staging.deploy()
    assert {job.result for job in jobs.values()} == {"success"}, logs_of(jobs)
    assert staging.commit() == commit
    for image, cause, _ in staging.state().values():
        assert re.fullmatch(
            rf"{staging.registry.address}/acme/{SERVICE}@sha256:[0-9a-f]{{64}}", image
        )
        assert cause == f"commit {commit}"
    migration = staging.get("job", MIGRATION)
    assert migration["status"]["succeeded"] == 1
    # The pods start after the migration.
    started = max(pod["metadata"]["creationTimestamp"] for pod in staging.get("pods")["items"])
    assert started >= migration["status"]["completionTime"]


def test_failed_migration_rolls_nothing_out(staging: Environment) -> None:
    before = staging.state()
    folder = staging.machine.repository / "src" / "app" / "migrations" / "versions"
    last = max(path.name[:4] for path in folder.glob("[0-9]*.py"))
    text = base64.b64encode(FAILING_MIGRATION.format(last=last).encode()).decode()
    place = "$(dirname $(python -c 'import app; print(app.__file__)'))/migrations/versions"
    staging.build(
        "USER 0", f"RUN echo {text} | base64 -d > {place}/9000_of_this_test.py", "USER 10001:10001"
    )
    jobs = staging.deploy()
    assert jobs["deploy-staging"].result == "failure", logs_of(jobs)
    assert "not deployed: the migration failed; no pod was replaced" in logs_of(jobs)
    assert "division by zero" in logs_of(jobs), "the log of the Job is shown"
    assert staging.state() == before


def test_version_that_is_never_ready_is_undone(staging: Environment) -> None:
    before, commit = staging.state(), staging.commit()
    staging.build('CMD ["sleep", "600"]')
    jobs = staging.deploy()
    assert jobs["deploy-staging"].result == "failure", logs_of(jobs)
    assert "exceeded its progress deadline; the earlier version is restored" in logs_of(jobs)
    assert "Startup probe failed" in logs_of(jobs), "the events are shown"
    assert staging.state() == before
    assert staging.commit() == commit


def test_version_that_fails_the_smoke_test_is_undone(staging: Environment) -> None:
    before, commit = staging.state(), staging.commit()
    deployed = staging.build(commit="another")
    jobs = staging.deploy()
    assert jobs["deploy-staging"].result == "failure", logs_of(jobs)
    assert f"smoke test failed: commit another runs, not {deployed}" in logs_of(jobs)
    assert "not deployed: the smoke test failed; the earlier version is restored" in logs_of(jobs)
    assert staging.state() == before
    assert staging.commit() == commit


def test_pipeline_has_minimal_permissions(staging: Environment) -> None:
    user = f"--as=system:serviceaccount:{staging.namespace}:pipeline"

    def may(*action: str, namespace: str = staging.namespace) -> bool:
        result = attempt_kubectl("auth", "can-i", *action, "--namespace", namespace, user)
        return result.stdout.strip() == "yes"

    assert may("patch", "deployments")
    assert may("delete", "jobs")
    refused = [
        *(("get", "secrets"), ("list", "secrets"), ("create", "secrets")),
        *(("create", "pods"), ("create", "pods", "--subresource=exec")),
        *(("patch", "roles"), ("create", "rolebindings")),
        *(("delete", "deployments"), ("delete", "persistentvolumeclaims")),
        ("create", "serviceaccounts", "--subresource=token"),
    ]
    assert [action for action in refused if may(*action)] == []
    assert not may("get", "pods", namespace="default")
    token = f"--token={staging.machine.identity_token}"
    connected = ("--server", staging.server, "--insecure-skip-tls-verify", token)
    command = ["kubectl", "--kubeconfig=/dev/null", *connected, "get", "secret", SERVICE]
    command += ["--namespace", staging.namespace]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Forbidden" in result.stderr


@pytest.mark.usefixtures("base_image")
def test_gitlab_deploys_to_production_after_a_failed_first_deployment(
    bake: Bake, registry: Registry, tmp_path: Path
) -> None:
    new = new_environment(bake, tmp_path, registry, "gitlab", "production", metrics=False)
    with new as production:
        production.build(commit="another")
        jobs = production.deploy()
        assert jobs["deploy"].result == "failure", logs_of(jobs)
        assert "this is the first deployment, so there is no earlier version" in logs_of(jobs)
        commit = production.build()
        jobs = production.deploy()
        assert jobs["deploy"].result == "success", logs_of(jobs)
        assert production.commit() == commit


@pytest.mark.usefixtures("base_image")
def test_missing_operator_is_named_before_anything_is_applied(
    bake: Bake, registry: Registry, tmp_path: Path
) -> None:
    if is_served("ServiceMonitor", "monitoring.coreos.com/v1"):
        pytest.skip("the cluster has the Prometheus operator")
    new = new_environment(bake, tmp_path, registry, "gitlab", "production", metrics=True)
    with new as environment:
        environment.build()
        jobs = environment.deploy()
        assert jobs["deploy"].result == "failure", logs_of(jobs)
        assert "not deployed: the cluster has no kind " in logs_of(jobs)
        assert "remove components/monitoring from production" in logs_of(jobs)
        assert environment.get("jobs,deployments")["items"] == []
