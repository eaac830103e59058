"""The permissions of the pipeline, compared with the manifests that it applies."""

from typing import Any

import pytest
from conftest import Bake
from kubectl import needs_kubectl, render
from test_bake import EVERY_OPTION, NO_OPTION

pytestmark = [pytest.mark.slow, needs_kubectl]

ENVIRONMENTS = ("production", "staging")
BAKES = {"everything": EVERY_OPTION, "nothing": {**NO_OPTION, "ci": "github"}}
APPLY = {"get", "list", "watch", "create", "patch"}
READ = {"get", "list", "watch"}
READ_ONLY = {"events", "pods", "pods/log", "replicasets"}  # to report and undo a failure
# The component `gateway` is an alternative to that for an Ingress, which the overlays have.
ALTERNATIVES = {("gateway.networking.k8s.io", "httproutes")}
PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}


def resource_of(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return the API group and the resource of an object."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    kind = manifest["kind"]
    return (group if slash else "", PLURALS.get(kind, f"{kind.lower()}s"))


@pytest.mark.parametrize("answers", BAKES.values(), ids=BAKES)
def test_role_has_the_kinds_of_the_overlays(bake: Bake, answers: dict[str, object]) -> None:
    manifests = bake(**{**answers, "deploy": "kubernetes"}).path / "deploy" / "kubernetes"
    applied = {
        resource_of(manifest)
        for environment in ENVIRONMENTS
        for manifest in render(manifests / "overlays" / environment)
    }
    for environment in ENVIRONMENTS:  # both have the same Role
        (role,) = [
            found
            for found in render(manifests / "administration" / environment)
            if found["kind"] == "Role"
        ]
        verbs = {
            (group, resource): set(rule["verbs"])
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        assert sum(len(r["apiGroups"]) * len(r["resources"]) for r in role["rules"]) == len(verbs)
        only_read = {key for key in verbs if key[1] in READ_ONLY}
        assert set(verbs) - only_read == applied | ALTERNATIVES
        assert all(verbs[key] == READ for key in only_read)
        assert verbs.pop(("batch", "jobs")) == APPLY | {"delete"}
        assert all(verbs[key] == APPLY for key in verbs.keys() - only_read)


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_each_environment_has_its_own_user(bake: Bake, ci: str) -> None:
    manifests = bake(ci=ci, deploy="kubernetes").path / "deploy" / "kubernetes"
    bindings = [
        found for found in render(manifests / "administration") if found["kind"] == "RoleBinding"
    ]
    users = {b["metadata"]["namespace"]: [s["name"] for s in b["subjects"]] for b in bindings}
    assert set(users) == {f"example-service-{environment}" for environment in ENVIRONMENTS}
    page = (manifests.parent.parent / "docs/deployment/kubernetes-access.md").read_text()
    for environment in ENVIRONMENTS:
        (name,) = users[f"example-service-{environment}"]
        assert name.startswith(f"{ci}:")
        assert name.endswith(f":environment:{environment}")
    assert f"`{users['example-service-production'][0]}`" in page
