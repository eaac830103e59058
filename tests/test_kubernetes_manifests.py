"""The manifests of every combination of options, rendered by kubectl without a cluster."""

import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Bake, default_answers
from kubectl import needs_kubectl, render
from node import run
from test_bake import CHOICES, EVERY_OPTION, NO_OPTION, is_supported, read_template
from test_deployment import settings_of

pytestmark = [pytest.mark.slow, needs_kubectl]

KUBERNETES = "deploy/kubernetes"
OVERLAYS = ["local", "production", "staging"]
NEWEST = 37
VERSIONS = [f"1.{minor}" for minor in range(28, NEWEST + 1)]
OPTIONS = ["redis", "metrics", "worker", "auth", "sentry", "tracing", "webhooks"]
RENDERED = ["redis", "metrics", "worker"]  # options that change a kustomization
CLOSING_SECONDS = 10  # docs/operations.md: to close connections, after drain and requests
HASH = re.compile(r"(?<=example-service)-[a-z0-9]{10}(?=\")")  # of a ConfigMap
# Kinds of operators. Packages have their types, and TypeScript refuses unknown fields.
PACKAGES = {
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator@6.0.0",
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api@2.0.0",
    "external-secrets.io": "@kubernetes-models/external-secrets@2.0.0",
    "bitnami.com": "@kubernetes-models/sealed-secrets@6.0.0",
}
TYPESCRIPT = "typescript@5.9.3"
Manifest = dict[str, Any]


def everything(**answers: object) -> dict[str, object]:
    return {**EVERY_OPTION, "deploy": "kubernetes", **answers}


@pytest.fixture(scope="module")
def rewrite(hook: ModuleType, repository: Path) -> Callable[..., dict[str, str]]:
    """rewrite(redis=True) returns the files of the manifests, by path."""
    template = {
        path: text
        for path, text in read_template(repository).items()
        if path.startswith("deploy/") or path in {"pyproject.toml", "LICENSE"}
    }

    def files_of(**chosen: object) -> dict[str, str]:
        answers = default_answers() | NO_OPTION | {"deploy": "kubernetes"} | chosen
        rewritten = hook.rewrite(template, answers)
        return {path: text for path, text in rewritten.items() if path.startswith("deploy/")}

    return files_of


@pytest.fixture(scope="module")
def files(rewrite: Callable[..., dict[str, str]]) -> dict[tuple[str, str], dict[str, object]]:
    """Provide the different files of every combination of options, with one of its combinations."""
    different: dict[tuple[str, str], dict[str, object]] = {}
    for values in itertools.product(*(CHOICES[option] for option in OPTIONS)):
        chosen = dict(zip(OPTIONS, values, strict=True))
        if is_supported(default_answers() | chosen):
            for file in rewrite(**chosen).items():
                different.setdefault(file, chosen)
    return different


@pytest.fixture(scope="module")
def manifests(
    rewrite: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> list[Manifest]:
    """Provide the different objects that kubectl renders, without their namespaces.

    Only these options change a kustomization. The others change single files, and are all chosen or
    not chosen here.
    """
    objects: list[Manifest] = []
    for redis, metrics, worker, others in itertools.product(*[[False, True]] * 4):
        chosen = {**EVERY_OPTION, "deploy": "kubernetes"} if others else {}
        chosen |= {"redis": redis, "metrics": metrics, "worker": "postgres" if worker else "none"}
        folder = tmp_path_factory.mktemp("combination")
        for path, text in rewrite(**chosen).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for overlay in OVERLAYS:
            objects += render(folder / KUBERNETES / "overlays" / overlay)
        objects += render(folder / KUBERNETES / "restore")
    return without_repetitions(objects)


def without_repetitions(objects: list[Manifest]) -> list[Manifest]:
    """Return the objects that differ in more than the namespace and a ConfigMap's hash."""
    different: dict[str, Manifest] = {}
    for manifest in objects:
        manifest["metadata"].pop("namespace", None)
        different.setdefault(HASH.sub("", json.dumps(manifest, sort_keys=True)), manifest)
    return list(different.values())


def write_kustomization(folder: Path, **content: object) -> None:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (folder / "kustomization.yaml").write_text(json.dumps({**head, **content}), encoding="utf-8")


def group_of(manifest: Manifest) -> str:
    return str(manifest["apiVersion"]).rpartition("/")[0]


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def pod_spec(manifest: Manifest) -> dict[str, Any] | None:
    """Return the specification of the pods that an object creates."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    template = spec.get("template", {})
    found = template.get("spec") if isinstance(template, dict) else None
    return found if isinstance(found, dict) and "containers" in found else None


def test_only_these_options_change_a_kustomization(
    files: dict[tuple[str, str], dict[str, object]],
) -> None:
    varied: dict[str, set[tuple[object, ...]]] = {}
    for (path, _), answers in files.items():
        if path.endswith("kustomization.yaml"):
            chosen = tuple(bool(answers[o]) and answers[o] != "none" for o in RENDERED)
            varied.setdefault(path, set()).add(chosen)
    texts = Counter(path for path, _ in files if path.endswith("kustomization.yaml"))
    assert all(len(varied[path]) == count for path, count in texts.items())


def test_every_combination_matches_the_schemas_of_kubernetes(
    files: dict[tuple[str, str], dict[str, object]], manifests: list[Manifest]
) -> None:
    """Each file of every combination, and the objects that kubectl renders."""
    assert kubernetes_validate.latest_version() == f"1.{NEWEST}.0"
    of_files = [
        manifest
        for path, text in files
        if path.endswith(".yaml") and not path.endswith("kustomization.yaml")
        for manifest in yaml.safe_load_all(text)
    ]
    objects = without_repetitions([*manifests, *of_files])
    checked = [m for m in objects if group_of(m) not in PACKAGES]
    kinds = {m["kind"] for m in checked}
    assert kinds >= {"Deployment", "Job", "CronJob", "Ingress", "HorizontalPodAutoscaler"}
    for version in VERSIONS:
        for manifest in checked:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_refuses_an_unknown_field(manifests: list[Manifest]) -> None:
    deployment = next(m for m in manifests if m["kind"] == "Deployment")
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_namespaces_match_the_schemas_and_refuse_unrestricted_pods(bake: Bake) -> None:
    objects = render(bake(**everything()).path / KUBERNETES / "administration")
    for manifest in objects:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    namespaces = [m for m in objects if m["kind"] == "Namespace"]
    assert len(namespaces) == 2
    for namespace in namespaces:
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.fixture(scope="module")
def of_operators(
    manifests: list[Manifest], bake: Bake, tmp_path_factory: pytest.TempPathFactory
) -> list[Manifest]:
    """Provide the objects whose kinds belong to operators."""
    folder = bake(**everything()).path / KUBERNETES
    gateway = tmp_path_factory.mktemp("gateway") / "kubernetes"
    shutil.copytree(folder, gateway)
    overlay = gateway / "overlays/production/kustomization.yaml"
    text = overlay.read_text().replace("components/ingress", "components/gateway")
    overlay.write_text(text.replace("value: api.example.com", "value: api.example.net"))
    rendered = render(overlay.parent)
    assert not [m for m in rendered if m["kind"] == "Ingress"]
    (route,) = [m for m in rendered if m["kind"] == "HTTPRoute"]
    assert route["spec"]["hostnames"] == ["api.example.net"]
    write_kustomization(
        folder / "secrets", resources=["external-secret.yaml", "sealed-secret.yaml"]
    )
    secrets = render(folder / "secrets")
    (folder / "secrets/kustomization.yaml").unlink()
    return [m for m in [*manifests, *rendered, *secrets] if group_of(m) in PACKAGES]


def test_kinds_of_operators_match_their_types(of_operators: list[Manifest], tmp_path: Path) -> None:
    assert {m["kind"] for m in of_operators} == {
        *("ServiceMonitor", "PodMonitor", "PrometheusRule"),
        *("HTTPRoute", "ExternalSecret", "SealedSecret"),
    }
    run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES.values(), TYPESCRIPT],
        tmp_path,
    )
    assert compile_types(of_operators, tmp_path) == ""
    wrong = next(m for m in of_operators if m["kind"] == "ServiceMonitor")
    wrong["spec"]["endpoints"][0]["intervall"] = "15s"
    assert "intervall" in compile_types(of_operators, tmp_path)


def compile_types(objects: list[Manifest], folder: Path) -> str:
    """Return the errors of TypeScript's compiler for these objects."""
    lines = []
    for number, manifest in enumerate(objects):
        package = PACKAGES[group_of(manifest)].rpartition("@")[0]
        path = f"{package}/{manifest['apiVersion']}/{manifest['kind']}"
        kind = f"I{manifest['kind']}"
        lines.append(f'import type {{ {kind} as Type{number} }} from "{path}";')
        lines.append(f"export const object{number}: Type{number} = {json.dumps(manifest)};")
    (folder / "objects.ts").write_text("\n".join(lines), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext"]
    result = subprocess.run(
        ["node_modules/.bin/tsc", *options, "objects.ts"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout


def test_pods_meet_the_standard_restricted(manifests: list[Manifest]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pods = [(m, spec) for m in manifests if (spec := pod_spec(m))]
    assert {m["kind"] for m, _ in pods} == {"Deployment", "StatefulSet", "Job", "CronJob"}
    volumes = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for manifest, spec in pods:
        name = name_of(manifest)
        pod_context = spec["securityContext"]
        assert pod_context["runAsNonRoot"] is True, name
        assert pod_context["runAsUser"] > 0, name
        assert pod_context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        for volume in spec.get("volumes", []):
            assert volume.keys() - {"name"} <= volumes, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert not {"privileged", "procMount"} & context.keys(), name
            assert all("hostPort" not in port for port in container.get("ports", [])), name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name


def test_probes_and_grace_periods_are_longer_than_the_limits_of_the_settings(bake: Bake) -> None:
    baked = bake(**everything())
    values = {name: float(v) for name, v in settings_of(baked).items() if v.isdecimal()}
    stop = values["DRAIN_SECONDS"] + values["GRACEFUL_TIMEOUT_SECONDS"] + CLOSING_SECONDS
    start = values["DATABASE_WAIT_SECONDS"] + values["MIGRATION_WAIT_SECONDS"]
    named = {name_of(m): m for m in render(baked.path / KUBERNETES / "overlays/production")}
    for name in ("example-service", "example-service-worker"):
        deployment = named[f"Deployment {name}"]["spec"]
        pod = deployment["template"]["spec"]
        probe = pod["containers"][0]["startupProbe"]
        assert pod["terminationGracePeriodSeconds"] >= stop
        assert probe["periodSeconds"] * probe["failureThreshold"] > start
        assert (
            deployment["progressDeadlineSeconds"]
            > probe["periodSeconds"] * probe["failureThreshold"]
        )
        assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert pod["securityContext"]["runAsUser"] == 10001, "the user of the Dockerfile"
    assert "useradd --uid 10001" in (baked.path / "Dockerfile").read_text()
    assert named["Job example-service-migration"]["spec"]["activeDeadlineSeconds"] > start


def policies_of(bake: Bake, **answers: object) -> dict[str, Any]:
    """Return the network policies of production by name, without the name of the service."""
    baked = bake(**{**NO_OPTION, "deploy": "kubernetes", **answers})
    objects = render(baked.path / KUBERNETES / "overlays" / "production")
    found = [m for m in objects if m["kind"] == "NetworkPolicy"]
    return {m["metadata"]["name"].removeprefix("example-service"): m["spec"] for m in found}


def test_network_policies_open_only_the_ports_of_the_options(bake: Bake) -> None:
    def ports(**answers: object) -> set[int]:
        policies = policies_of(bake, **answers).values()
        rules = [rule for policy in policies for rule in policy.get("egress", [])]
        return {port["port"] for rule in rules for port in rule["ports"]}

    without_options = ports()
    assert without_options == {53, 5432}
    assert ports(redis=True) - without_options == {6379}
    assert ports(auth="accounts") - without_options == {443, 465, 587}
    assert ports(auth="oidc") - without_options == {443}
    assert ports(tracing=True) - without_options == {443, 4318}


def test_network_policies_accept_only_the_ingress_controller_and_prometheus(bake: Bake) -> None:
    policies = policies_of(bake, redis=True, metrics=True, worker="postgres")
    everything_else = policies.pop("")
    assert everything_else["policyTypes"] == ["Ingress", "Egress"]
    assert everything_else["ingress"] == []
    assert everything_else["podSelector"]["matchLabels"].keys() == {"app.kubernetes.io/name"}
    accepted = {
        name: (policy["podSelector"]["matchLabels"].get("app.kubernetes.io/component"), *namespaces)
        for name, policy in policies.items()
        for rule in policy.get("ingress", [])
        if (namespaces := [*rule["from"][0]["namespaceSelector"]["matchLabels"].values()])
    }
    assert accepted == {"-ingress": ("server", "traefik"), "-monitoring": (None, "monitoring")}


def test_private_registry_is_used_by_every_pod(bake: Bake, tmp_path: Path) -> None:
    kubernetes = tmp_path / "kubernetes"
    shutil.copytree(bake(**everything()).path / KUBERNETES, kubernetes)
    private = kubernetes / "overlays" / "private"
    private.mkdir()
    component = ["../../components/private-registry"]
    write_kustomization(private, resources=["../production"], components=component)
    (account,) = [m for m in render(private) if m["kind"] == "ServiceAccount"]
    assert account["imagePullSecrets"] == [{"name": "registry"}]


def test_files_for_secrets_have_no_value(bake: Bake) -> None:
    folder = bake(**everything()).path / KUBERNETES / "secrets"
    lines = (folder / "secret.env.template").read_text().splitlines()
    assert all(line.startswith("# ") or line.endswith("=") for line in lines)
    for overlay in ("production", "staging"):
        objects = render(folder.parent / "overlays" / overlay)
        assert not [m for m in objects if m["kind"] == "Secret"]


CHECKOV = "checkov==3.3.30"
# Rules of checkov that the manifests do not follow, and the reason.
SKIPPED = {
    "CKV_K8S_11": "a CPU limit pauses requests in flight",
    "CKV_K8S_15": "the pipeline sets a digest; the image of PostgreSQL has the tag of compose.yaml",
    "CKV_K8S_35": "the service reads its settings from the environment, on every platform",
    "CKV_K8S_40": "the images of PostgreSQL and Redis have users below 10000",
    "CKV_K8S_43": "the pipeline sets a digest; the image of PostgreSQL has the tag of compose.yaml",
}
SKIPPED_LOCALLY = {
    "CKV_K8S_8": "the database and the cache of overlays/local are for development",
    "CKV2_K8S_6": "the database and the cache of overlays/local are for development",
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_checkov_finds_no_problem(bake: Bake, overlay: str, tmp_path: Path) -> None:
    kubernetes = tmp_path / "kubernetes"
    shutil.copytree(bake(**everything()).path / KUBERNETES, kubernetes)
    release = kubernetes / "release"  # as the pipeline deploys it
    release.mkdir()
    image = {"name": "example-service", "newName": "ghcr.io/org/example-service"}
    image["digest"] = f"sha256:{'0' * 64}"
    write_kustomization(release, resources=[f"../overlays/{overlay}"], images=[image])
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(yaml.safe_dump_all(render(release)), encoding="utf-8")
    skipped = SKIPPED | (SKIPPED_LOCALLY if overlay == "local" else {})
    assert failed_rules(rendered) == set(skipped)


def failed_rules(path: Path) -> set[str]:
    """Return the ids of the rules of checkov that a file with manifests does not follow."""
    options = ["--framework=kubernetes", "--output=json", "--quiet", "--skip-download"]
    result = subprocess.run(
        ["uvx", "--quiet", "--from", CHECKOV, "checkov", *options, "--file", path],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 100
    return {check["check_id"] for check in report["results"]["failed_checks"]}
