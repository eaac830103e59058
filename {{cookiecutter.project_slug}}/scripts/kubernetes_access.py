"""Write a kubeconfig for a job of the pipeline, which has an identity token instead of a key.

    python scripts/kubernetes_access.py kubeconfig

KUBERNETES_SERVER is the URL of the cluster's API server, and the audience of the token.
KUBERNETES_CA is its certificate authority (PEM in base64), if that is not a public one.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any


class NoAccess(Exception):
    """The job has no access to the cluster, for the reason in the message."""


def variable(name: str) -> str:
    """Return a variable of the environment.

    Raises:
        NoAccess: it is not set.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise NoAccess(f"{name} is not set")
    return value


def run_for_token(program: str) -> dict[str, Any]:
    """Return the part of a kubeconfig that lets kubectl run a program when it needs a token."""
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(Path(__file__).resolve().with_name(program))],
        "interactiveMode": "Never",
    }


def kubeconfig() -> dict[str, Any]:
    """Return the kubeconfig.

    Raises:
        NoAccess: a variable is missing or wrong.
    """
    cluster = {"server": variable("KUBERNETES_SERVER")}
    if not cluster["server"].startswith("https://"):
        raise NoAccess("KUBERNETES_SERVER is not an https:// URL")
    if authority := os.environ.get("KUBERNETES_CA", "").strip():
        cluster["certificate-authority-data"] = authority
    user: dict[str, Any] = {}
    # The token of GitHub is valid for minutes, so kubectl requests new ones.  # option: github
    user["exec"] = run_for_token("kubernetes_credential.py")  # option: github
    # The token of GitLab is valid as long as the job may run.  # option: gitlab
    user["token"] = variable("KUBERNETES_TOKEN")  # option: gitlab
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "job", "user": user}],
        "contexts": [{"name": "job", "context": {"cluster": "cluster", "user": "job"}}],
        "current-context": "job",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="kubeconfig to write")
    file = parser.parse_args().file
    try:
        document = json.dumps(kubeconfig(), indent=2)
    except NoAccess as error:
        sys.exit(f"no access to Kubernetes: {error}")
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
