"""scripts/deploy_to_kubernetes.py with a program in place of kubectl, which records its calls."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import deploy_to_kubernetes
from deploy_to_kubernetes import DEPLOYMENTS, MIGRATION, NAME, main

OVERLAYS = Path(deploy_to_kubernetes.__file__).parent.parent / "deploy" / "kubernetes"
IMAGE = f"registry.example.com/acme/{NAME}@sha256:{'0a' * 32}"

# It looks for the first rule whose words are all among the arguments, and does what that says.
KUBECTL = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
if "-k" in arguments:
    place = arguments[arguments.index("-k") + 1]
    text = pathlib.Path(place, "kustomization.yaml").read_text()
    (folder / "kustomization.json").write_text(text)
    arguments[arguments.index("-k") + 1] = "FOLDER"
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
for words, output, errors, code in json.loads((folder / "rules.json").read_text()):
    if set(words) <= set(arguments):
        print(output)
        print(errors, file=sys.stderr)
        sys.exit(code)
"""


def job(condition: str, status: str = "True") -> str:
    return json.dumps({"status": {"conditions": [{"type": condition, "status": status}]}})


def deployments(**revisions: str) -> str:
    key = "deployment.kubernetes.io/revision"
    items = [
        {"metadata": {"name": name.replace("_", "-"), "annotations": {key: revision}}}
        for name, revision in revisions.items()
    ]
    return json.dumps({"items": items})


@dataclass
class Cluster:
    """The stand-in of a cluster: rules of what kubectl answers, and the recorded calls."""

    folder: Path
    overlay: Path
    rules: list[tuple[list[str], str, str, int]] = field(default_factory=list)

    def answer(self, words: str, output: str = "", errors: str = "", code: int = 0) -> None:
        """Let kubectl answer calls that contain these words. Earlier rules have precedence."""
        self.rules.append((words.split(), output, errors, code))

    @property
    def calls(self) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.removeprefix(f"--namespace {NAME}-staging ") for line in lines]

    @property
    def undone(self) -> list[str]:
        return [call for call in self.calls if call.startswith("rollout undo")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.setattr("deploy_to_kubernetes.PAUSE_SECONDS", 0.01)
    shutil.copytree(OVERLAYS, tmp_path / "kubernetes")
    return Cluster(tmp_path, tmp_path / "kubernetes" / "overlays" / "staging")


Deploy = Callable[..., str | None]


@pytest.fixture
def deploy(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Return a function that runs the program, and returns its exit message."""

    def run(*options: str, image: str = IMAGE) -> str | None:
        cluster.answer(f"get job {MIGRATION}", job("Complete"))
        cluster.answer("get deployments", deployments(**{NAME: "3"}))
        (cluster.folder / "rules.json").write_text(json.dumps(cluster.rules))
        (cluster.folder / "calls").touch()
        arguments = ["deploy_to_kubernetes.py", str(cluster.overlay), image, *options]
        monkeypatch.setattr("sys.argv", arguments)
        try:
            main()
        except SystemExit as error:
            return str(error.code)
        finally:
            left = {path.name for path in cluster.overlay.parent.iterdir()}
            assert left == {"local", "production", "staging"}, "the folder is removed"
        return None

    return run


def test_migration_comes_before_the_roll_out(cluster: Cluster, deploy: Deploy) -> None:
    assert deploy() is None
    statuses = [f"rollout status deployment/{name} --timeout=600s" for name in DEPLOYMENTS]
    assert cluster.calls == [
        f"delete job {MIGRATION} --ignore-not-found",
        "apply -k FOLDER --dry-run=server",
        "apply -k FOLDER --selector=app.kubernetes.io/component notin (server,worker,backup)",
        f"get job {MIGRATION} --output=json",
        "get deployments --output=json",
        "apply -k FOLDER",
        *statuses,
    ]


def test_image_and_cause_are_set_on_top_of_the_overlay(cluster: Cluster, deploy: Deploy) -> None:
    assert deploy("--commit", "c0ffee") is None
    document = json.loads((cluster.folder / "kustomization.json").read_text())
    assert document["resources"] == ["../staging"]
    name, _, digest = IMAGE.partition("@")
    assert document["images"] == [{"name": NAME, "newName": name, "digest": digest}]
    patch = json.loads(document["patches"][0]["patch"])
    assert patch["metadata"]["annotations"] == {"kubernetes.io/change-cause": "commit c0ffee"}


@pytest.mark.parametrize("image", ["acme/app", "acme/app:1", "acme/app@sha256:0a", "@sha256:"])
def test_image_without_a_digest_is_refused(cluster: Cluster, deploy: Deploy, image: str) -> None:
    message = deploy(image=image)
    assert message == f"not deployed: {image!r} is not an image with a digest (name@sha256:...)"
    assert cluster.calls == []


def test_unknown_overlay_is_refused(cluster: Cluster, deploy: Deploy) -> None:
    cluster.overlay = cluster.overlay.with_name("qa")
    assert f"not deployed: {cluster.overlay} is not an overlay: " in str(deploy())
    assert cluster.calls == []


def test_failed_migration_rolls_nothing_out(cluster: Cluster, deploy: Deploy) -> None:
    cluster.answer(f"get job {MIGRATION}", job("Failed"))
    assert deploy() == "not deployed: the migration failed; no pod was replaced"
    assert f"logs job/{MIGRATION} --tail=100" in cluster.calls
    waited = [call for call in cluster.calls if call.startswith("get job")]
    assert len(waited) == 1, "the end of the Job ends the wait"
    assert "apply -k FOLDER" not in cluster.calls
    assert cluster.undone == []


def test_migration_that_does_not_end_rolls_nothing_out(
    cluster: Cluster, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy_to_kubernetes.MIGRATION_SECONDS", 0.5)
    cluster.answer(f"get job {MIGRATION}", job("Failed", "False"))
    message = deploy()
    assert message == "not deployed: the migration did not end within 0.5 s; no pod was replaced"
    assert "apply -k FOLDER" not in cluster.calls


def test_failed_roll_out_is_undone(
    cluster: Cluster, deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    error = "error: deployment exceeded its progress deadline"
    cluster.answer("status --timeout=600s", errors=error, code=1)
    message = deploy("--url", "http://127.0.0.1:1")
    assert message == f"not deployed: kubectl rollout: {error}; the earlier version is restored"
    assert cluster.undone == [f"rollout undo deployment/{NAME} --to-revision=3"]
    assert cluster.calls[-1] == f"rollout status deployment/{NAME} --timeout=300s"
    assert "get events --sort-by=.metadata.creationTimestamp" in cluster.calls
    assert error in capfd.readouterr().err


def test_failed_first_deployment_has_nothing_to_undo(cluster: Cluster, deploy: Deploy) -> None:
    cluster.answer("get deployments", deployments())
    cluster.answer("status", errors="error: timed out waiting for the condition", code=1)
    assert "; this is the first deployment, so there is no earlier version" in str(deploy())
    assert cluster.undone == []


def test_failed_undo_is_reported(cluster: Cluster, deploy: Deploy) -> None:
    cluster.answer("status", errors="error: timed out", code=1)
    cluster.answer("undo", errors="error: unable to find the revision", code=1)
    reason = "kubectl rollout: error: unable to find the revision"
    assert str(deploy()).endswith(f"; the earlier version was NOT restored: {reason}")


def test_failed_smoke_test_is_undone(cluster: Cluster, deploy: Deploy) -> None:
    message = deploy("--url", "http://127.0.0.1:1", "--wait", "0")
    assert message == "not deployed: the smoke test failed; the earlier version is restored"
    assert len(cluster.undone) == 1


def test_refused_manifest_changes_nothing(cluster: Cluster, deploy: Deploy) -> None:
    cluster.answer("apply --dry-run=server", errors='Error: "-1" is invalid', code=1)
    assert deploy() == 'not deployed: kubectl apply: Error: "-1" is invalid'
    assert len([call for call in cluster.calls if call.startswith("apply")]) == 1


def test_missing_kind_is_explained(cluster: Cluster, deploy: Deploy) -> None:
    error = 'error: resource mapping not found: no matches for kind "HTTPRoute" in version "v1"'
    cluster.answer("apply --dry-run=server", errors=f"{error}\nensure CRDs are installed", code=1)
    assert deploy() == (
        "not deployed: the cluster has no kind HTTPRoute: install the operator that defines it, or"
        " remove components/gateway from staging"
    )


def test_missing_kubectl_is_reported(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "not deployed: kubectl: " in str(deploy())
