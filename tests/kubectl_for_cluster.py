"""kubectl, for pipelines on the cluster of the tests: `apply -k` applies what the cluster accepts.

It renders the folder, replaces what kubernetes_manifests.substitute() replaces, and applies the
result with the arguments of the call. Other commands are passed on.
"""

import os
import subprocess
import sys

import yaml
from kubernetes import cached_user_id, is_served, kubectl
from kubernetes_manifests import Manifest, Substitution, substitute

REGISTRY = "ghcr.io/acme/"  # REPLACED_REGISTRY replaces it


def main() -> None:
    arguments = sys.argv[1:]
    if "-k" not in arguments:
        os.execvp("kubectl", ["kubectl", *arguments])  # noqa: S606 - this is the program
    position = arguments.index("-k")
    rendered = kubectl("kustomize", arguments[position + 1])
    rendered = rendered.replace(REGISTRY, os.environ.get("REPLACED_REGISTRY", REGISTRY))
    manifests: list[Manifest] = list(yaml.safe_load_all(rendered))
    made, substitutions = substitute(manifests, is_served=is_served, user_id=cached_user_id)
    assert all(is_expected(substitution) for substitution in substitutions), substitutions
    arguments[position : position + 2] = ["-f", "-"]
    text = yaml.safe_dump_all(made)
    sys.exit(subprocess.run(["kubectl", *arguments], input=text, text=True, check=False).returncode)


def is_expected(substitution: Substitution) -> bool:
    """Return whether it is an older API version, or the user of the database's local image."""
    return substitution.path == "apiVersion" or substitution.kind == "CronJob"


if __name__ == "__main__":
    main()
