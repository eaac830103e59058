"""Manifests of a baked service, for the server that the tests have.

The manifests are written for current clusters. A server that is too old for an API version gets the
older one of OLDER_VERSIONS, and pods get the user id that the local image of a server has. All else
is applied as kustomize renders it.
"""

import copy
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from engine import docker

Manifest = dict[str, Any]

# A tag of the local Docker engine stands for the digest of a registry.
IMAGE = "tests-on-a-cluster/example-service"
# kind, API version of the manifest, and its predecessor
OLDER_VERSIONS = (
    ("CronJob", "batch/v1", "batch/v1beta1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v2beta2"),
    ("PodDisruptionBudget", "policy/v1", "policy/v1beta1"),
)
# The user of public images has this id. A local image of the same name may have another one.
PUBLIC_USER_ID = 999
USERS = {"pgvector/pgvector": "postgres", "postgres": "postgres", "redis": "redis"}


@dataclass(frozen=True)
class Substitution:
    """A value of a manifest that was replaced: `path` has dots between the keys."""

    kind: str
    path: str
    old: object
    new: object


@dataclass
class Overlay:
    """An overlay of a test on top of `overlays/local`.

    Attributes:
        folder: a copy of the service's deploy/kubernetes.
        namespace: the namespace of all objects.
        tag: of the service's image.
        config: variables to change.
        patches: strategic merge patches, as objects.
    """

    folder: Path
    namespace: str
    tag: str
    config: dict[str, str] = field(default_factory=dict)
    patches: list[Manifest] = field(default_factory=list)

    def render(self) -> list[Manifest]:
        overlay = self.folder / "overlays" / self.namespace
        overlay.mkdir(exist_ok=True)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": ["../local"],
            "images": [{"name": "example-service", "newName": IMAGE, "newTag": self.tag}],
            "configMapGenerator": [
                {
                    "name": "example-service",
                    "behavior": "merge",
                    "literals": [f"{name}={value}" for name, value in self.config.items()],
                }
            ],
            "patches": [{"patch": yaml.safe_dump(patch)} for patch in self.patches],
        }
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        result = subprocess.run(
            ["kubectl", "kustomize", overlay],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return list(yaml.safe_load_all(result.stdout))


def patch_of(kind: str, name: str, api_version: str, **fields: object) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}


def substitute(
    manifests: Iterable[Manifest],
    *,
    is_served: Callable[[str, str], bool],
    user_id: Callable[[str, str], int],
) -> tuple[list[Manifest], list[Substitution]]:
    """Return the manifests for this server, and what was replaced in them.

    Args:
        manifests: as kustomize renders them.
        is_served: whether the server has this kind in this API version.
        user_id: the id of a user in an image.
    """
    older = {(kind, new): old for kind, new, old in OLDER_VERSIONS}
    made, substitutions = [], []
    for manifest in copy.deepcopy(list(manifests)):
        kind, version = manifest["kind"], manifest["apiVersion"]
        if (kind, version) in older and not is_served(kind, version):
            manifest["apiVersion"] = older[kind, version]
            substitutions.append(Substitution(kind, "apiVersion", version, manifest["apiVersion"]))
        for path, pod in pod_specs(manifest):
            image = pod["containers"][0]["image"]
            user = USERS.get(image.rpartition(":")[0])
            if user is None:
                continue
            found, context = user_id(image, user), pod["securityContext"]
            for name in ("runAsUser", "runAsGroup", "fsGroup"):
                if context.get(name, found) != found:
                    assert context[name] == PUBLIC_USER_ID, f"{kind} {image}: {context}"
                    place = f"{path}.securityContext.{name}"
                    substitutions.append(Substitution(kind, place, context[name], found))
                    context[name] = found
        made.append(manifest)
    return made, substitutions


def pod_specs(manifest: Manifest) -> list[tuple[str, Manifest]]:
    """Return the specification of the pods of an object, with its path."""
    paths = {
        "CronJob": "spec.jobTemplate.spec.template.spec",
        "Deployment": "spec.template.spec",
        "Job": "spec.template.spec",
        "StatefulSet": "spec.template.spec",
    }
    path = paths.get(manifest["kind"])
    if path is None:
        return []
    found = manifest
    for key in path.split("."):
        found = found[key]
    return [(path, found)]


def user_id_in(image: str, user: str) -> int:
    """Return the id that a user has in an image of this machine."""
    return int(docker("run", "--rm", "--entrypoint", "id", image, "-u", user))


def differences(old: object, new: object, path: str = "") -> list[tuple[str, object, object]]:
    """Return the path, the old and the new value of each difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in {**old, **new}
            for found in differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            found
            for index, pair in enumerate(zip(old, new, strict=True))
            for found in differences(*pair, f"{path}.{index}")
        ]
    return [] if old == new else [(path, old, new)]
