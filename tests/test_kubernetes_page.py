"""The commands of docs/deployment/kubernetes.md, in their order, on the cluster of KUBECONFIG.

A stand-in replaces kind, because the cluster runs the images of the local Docker engine. The
cluster has no operators, so the project has no monitoring. See kubectl_for_cluster.py for the API
versions.
"""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Bake
from engine import docker, free_port
from kubernetes_cluster import attempt_kubectl, delete_namespace, kubectl
from test_docs import shell_blocks

pytestmark = [
    pytest.mark.containers,
    pytest.mark.kubernetes,
    pytest.mark.usefixtures("cluster"),
]

LOCAL, PRODUCTION = "example-service-local", "example-service-production"
NAMESPACES = (LOCAL, PRODUCTION, "example-service-staging")
PAGE = Path("docs", "deployment", "kubernetes.md")
PASSWORD = "of-this-test"
URL = f"postgresql://production:{PASSWORD}@database.{LOCAL}/production"
# The pods of both environments do not fit on a node with two cores.
FIRST_ENVIRONMENT = "deployments,horizontalpodautoscalers"


class Page:
    """A project, and the blocks of its page that were not run yet."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project = project
        self.blocks = shell_blocks(page_of(project))
        self.port = str(free_port())
        folder.mkdir()
        self.calls = folder / "calls"
        for name, script in {
            "kind": f'echo "$@" >> {self.calls}',
            "kubectl": f'PATH="{os.environ["PATH"]}" exec {sys.executable} '
            f'{Path(__file__).with_name("kubectl_for_cluster.py")} "$@"',
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            (folder / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        self.environment["KUBECONFIG"] = str(folder / "kubeconfig")  # the page sets a namespace
        self.environment |= {"REGISTRY_USER": "test", "REGISTRY_TOKEN": PASSWORD}
        view = kubectl("config", "view", "--raw", "--flatten")
        (folder / "kubeconfig").write_text(view, encoding="utf-8")

    def run(self, beginning: str) -> str:
        """Run the next block, which begins with these words, and return its output."""
        block = self.blocks.pop(0)
        assert block.startswith(beginning), block
        # Programs in the background end with the block.
        script = f"trap 'jobs -p | xargs --no-run-if-empty kill' EXIT\n{block}".replace(
            "8000", self.port
        )
        result = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.project, env=self.environment,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
        return result.stdout


@pytest.fixture
def page(bake: Bake, tmp_path: Path) -> Iterator[Page]:
    for namespace in NAMESPACES:
        assert attempt_kubectl("get", "namespace", namespace).returncode, f"{namespace} exists"
    project = bake(lock=True, deploy="kubernetes", metrics=False, redis=False).copy_to(
        tmp_path / "example-service"
    )
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "First"]):
        subprocess.run([*git, *arguments], cwd=project, check=True)
    yield Page(project, tmp_path / "bin")
    kubectl("delete", "namespaces", *NAMESPACES, "--ignore-not-found", "--wait=false")
    for namespace in NAMESPACES:
        delete_namespace(namespace)
    docker("image", "rm", "--force", "example-service:local")


def test_commands_of_the_page_work_in_their_order(page: Page) -> None:
    assert '"status":"ready"' in page.run("kind create cluster")
    page.run("make image")
    kubectl("rollout", "status", "deployment/example-service", "--namespace", LOCAL)
    page.run("kind delete cluster")
    assert page.calls.read_text(encoding="utf-8").splitlines() == [
        "create cluster",
        *["load docker-image example-service:local"] * 2,
        "delete cluster",
    ]
    for statement in (
        f"CREATE ROLE production LOGIN PASSWORD '{PASSWORD}'",
        "CREATE DATABASE production OWNER production",
    ):
        kubectl("exec", "database-0", "--namespace", LOCAL, "--", *psql(statement))
    kubectl("delete", FIRST_ENVIRONMENT, "--all", "--namespace", LOCAL)

    page.run("kubectl apply -k deploy/kubernetes/administration")
    write_secret(page.project)
    page.run("kubectl create secret generic example-service")
    name_local_image(page.project)
    page.run("kubectl create secret docker-registry registry")
    restart = page.blocks.pop(0)  # after the first deployment
    page.run("kubectl delete job example-service-migration")
    page.run("kubectl apply -k deploy/kubernetes/overlays/production")
    page.blocks.insert(0, restart)
    page.run("kubectl rollout restart deployment")
    page.run("kubectl rollout undo deployment/example-service")
    report = page.run("kubectl exec deployment/example-service")
    assert "connections ok " in report
    assert "Application startup complete" in page.run("kubectl logs")
    assert ".dump" in page.run("kubectl delete job backup-now")
    kubectl(
        "exec", "database-0", "--namespace", LOCAL, "--", *psql("ALTER ROLE production CREATEDB")
    )
    page.run("kubectl delete job example-service-restore")
    for database in ("production", "restored"):
        count = psql("SELECT count(*) FROM alembic_version", database)
        assert kubectl("exec", "database-0", "--namespace", LOCAL, "--", *count) == "1"
    assert page.blocks == []


def psql(statement: str, database: str = "app") -> list[str]:
    return ["psql", "--username=app", "--dbname", database, "-Atqc", statement]


def write_secret(project: Path) -> None:
    folder = project / "deploy" / "kubernetes" / "secrets"
    text = (folder / "secret.env.template").read_text(encoding="utf-8")
    text = text.replace("DATABASE_URL=", f"DATABASE_URL={URL}")
    (folder / "production.env").write_text(text, encoding="utf-8")
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    result = subprocess.run(status, cwd=project, check=True, capture_output=True, text=True)
    assert result.stdout == "", "Git ignores the values"


def name_local_image(project: Path) -> None:
    """Add the image of this machine to the overlay, in the place of the one on the page."""
    (block,) = re.findall(r"^   ```yaml\n(   images:.*?)^   ```$", page_of(project), re.M | re.S)
    path = project / "deploy" / "kubernetes" / "overlays" / "production" / "kustomization.yaml"
    images = textwrap.dedent(block)
    for name, value in (("newName", "example-service"), ("newTag", "local")):
        images = re.sub(rf"(?<={name}: ).*", value, images)
    path.write_text(path.read_text(encoding="utf-8") + images, encoding="utf-8")


def page_of(project: Path) -> str:
    return (project / PAGE).read_text(encoding="utf-8")
