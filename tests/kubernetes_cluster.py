"""The cluster of KUBECONFIG.

The tests do not start a cluster: a user's machine may have one with other work in it.
"""

import functools
import json
import shutil
import socket
import subprocess
from urllib.parse import urlsplit

from engine import docker, wait_until
from kubernetes_manifests import user_id_in

NO_CLUSTER = "no Kubernetes cluster: KUBECONFIG is not set"
WARNING = """\
NO KUBERNETES CLUSTER: the manifests were NOT rolled out, and the failure tests on a
cluster were NOT run. Start one on this machine, set KUBECONFIG to its file, and run:
make test-kubernetes"""
KUSTOMIZE_MAJOR = 5  # that of kubectl 1.27


def attempt_kubectl(
    *arguments: str, text: str | None = None, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *arguments],
        input=text, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


def kubectl(*arguments: str, text: str | None = None, timeout: float = 180) -> str:
    """Run a kubectl command, and return its standard output.

    Raises:
        AssertionError: the command failed. The message has its output.
    """
    result = attempt_kubectl(*arguments, text=text, timeout=timeout)
    assert result.returncode == 0, f"kubectl {' '.join(arguments)}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()


def why_not_usable() -> str:
    """Return why the tests must not use the cluster of KUBECONFIG, or an empty text."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    version = json.loads(kubectl("version", "--client", "--output", "json"))
    kustomize = version.get("kustomizeVersion", "v0")
    if int(kustomize.removeprefix("v").partition(".")[0]) < KUSTOMIZE_MAJOR:
        return f"kubectl has kustomize {kustomize}, the manifests need version {KUSTOMIZE_MAJOR}"
    config = json.loads(kubectl("config", "view", "--minify", "--output", "json"))
    server = config["clusters"][0]["cluster"]["server"]
    if not config["current-context"].startswith("kind-") and not is_local(server):
        return f"{server} is not on this machine: the tests delete what they create, and more fails"
    return ""


def is_local(url: str) -> bool:
    """Return whether the host of a URL is an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind(address)
    except OSError:
        return False
    return True


@functools.cache
def is_served(kind: str, api_version: str) -> bool:
    """Return whether the server has a kind in an API version."""
    result = attempt_kubectl("get", "--raw", f"/apis/{api_version}")
    if result.returncode != 0:
        assert "NotFound" in result.stderr, result.stderr
        return False
    return kind in {resource["kind"] for resource in json.loads(result.stdout)["resources"]}


cached_user_id = functools.cache(user_id_in)


def delete_namespace(name: str) -> None:
    """Delete a namespace with its containers and volumes.

    The pods are not asked to stop: the kubelet would take up to a minute.
    """
    # First the objects that start new pods.
    owners = "deployments,statefulsets,jobs,cronjobs"
    attempt_kubectl("--namespace", name, "delete", owners, "--all", "--wait=false")
    force = ("--grace-period=0", "--force", "--wait=false")
    attempt_kubectl("--namespace", name, "delete", "pods", "--all", *force)
    kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")
    label = ("--filter", f"label=io.kubernetes.pod.namespace={name}")
    containers = docker("ps", "--all", "--quiet", *label).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    wait_until(lambda: not _has_volumes(name), seconds=60, of=f"deleted volumes of {name}")
    assert docker("ps", "--all", "--quiet", *label) == ""


def _has_volumes(namespace: str) -> bool:
    volumes = json.loads(kubectl("get", "persistentvolumes", "--output", "json"))["items"]
    claims = [volume["spec"].get("claimRef", {}) for volume in volumes]
    return any(claim.get("namespace") == namespace for claim in claims)
