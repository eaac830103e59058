"""kubectl, for pipelines on the cluster of the tests: `apply -k` applies what the cluster accepts.

It renders the folder, replaces what kubernetes_manifests.substitute() replaces, and applies the
result with the arguments of the call. `create job --from` reads an older CronJob. Other commands
are passed on.
"""

import json
import os
import subprocess
import sys

import yaml
from kubernetes_cluster import cached_user_id, is_served, kubectl
from kubernetes_manifests import Manifest, substitute

REGISTRY = "ghcr.io/acme/"  # REPLACED_REGISTRY replaces it


def main() -> None:
    arguments = sys.argv[1:]
    if "--from" in arguments and not is_served("CronJob", "batch/v1"):
        sys.exit(create_job(arguments))
    if "-k" not in arguments:
        os.execvp("kubectl", ["kubectl", *arguments])  # noqa: S606 - this is the program
    position = arguments.index("-k")
    rendered = kubectl("kustomize", arguments[position + 1])
    rendered = rendered.replace(REGISTRY, os.environ.get("REPLACED_REGISTRY", REGISTRY))
    manifests: list[Manifest] = list(yaml.safe_load_all(rendered))
    made, _ = substitute(manifests, is_served=is_served, user_id=cached_user_id)
    arguments[position : position + 2] = ["-f", "-"]
    text = yaml.safe_dump_all(made)
    sys.exit(subprocess.run(["kubectl", *arguments], input=text, text=True, check=False).returncode)


def create_job(arguments: list[str]) -> int:
    """Create a Job from a CronJob, whose older API version `kubectl create job --from` refuses.

    Args:
        arguments: create job NAME --from cronjob/NAME --namespace NAMESPACE

    Returns:
        The exit code of kubectl.
    """
    assert arguments[:2] == ["create", "job"]
    namespace = ("--namespace", arguments[arguments.index("--namespace") + 1])
    cronjob = arguments[arguments.index("--from") + 1]
    found = json.loads(kubectl("get", cronjob, *namespace, "--output=json"))
    template = found["spec"]["jobTemplate"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": template["spec"]}
    job["metadata"] = {"name": arguments[2], "labels": template["metadata"]["labels"]}
    command = ["kubectl", "create", *namespace, "--filename=-"]
    return subprocess.run(command, input=json.dumps(job), text=True, check=False).returncode


if __name__ == "__main__":
    main()
