"""Configuration for Railway and Render, compiled and compared with the service's settings.

No account is needed. tests/schemas/ has schemas of the documented keys that the files use, because
the platforms' schemas are not available offline.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Bake, Baked
from engine import attempt, docker, wait_until
from test_bake import EVERY_OPTION, NO_OPTION
from test_formats import run

SCHEMAS = ROOT / "tests" / "schemas"
CLOSING_SECONDS = 10  # docs/operations.md: to close connections, after drain and requests
REFERENCE = re.compile(r"\$\{\{(?:(?P<service>[\w-]+)\.)?(?P<name>\w+)\}\}")
ANSWERS = [
    {},
    NO_OPTION,
    EVERY_OPTION,
    {"worker": "postgres"},
    {"worker": "postgres", "redis": False},
    {"worker": "celery"},
    {"pgvector": True},
    {"auth": "accounts"},
    {"auth": "accounts", "worker": "celery"},
    {"auth": "oidc", "worker": "postgres"},
    {"redis": False},
    {"project_name": "Order Service", "project_slug": "order-service"},
]


@pytest.fixture(params=ANSWERS, ids=lambda answers: "-".join(map(str, answers)) or "defaults")
def answers(request: pytest.FixtureRequest) -> dict[str, object]:
    return dict(request.param)


@pytest.fixture
def on_railway(bake: Bake, answers: dict[str, object]) -> Baked:
    return bake(**{**answers, "deploy": "railway"})


@pytest.fixture
def on_render(bake: Bake, answers: dict[str, object]) -> Baked:
    return bake(**{**answers, "deploy": "render"})


def compiled(baked: Baked) -> dict[str, Any]:
    """Return the graph of .railway/railway.py, as `railway config` compiles it."""
    spec = importlib.util.spec_from_file_location(
        "railway_file", baked.path / ".railway/railway.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graph = module.main().to_graph()
    assert json.loads(json.dumps(graph)) == graph, "the command line needs JSON"
    return dict(graph)


def resources(baked: Baked) -> dict[str, dict[str, Any]]:
    graph = compiled(baked)
    assert graph["name"] == baked.answers["project_slug"]
    named = {resource["name"]: resource for resource in graph["resources"]}
    assert len(named) == len(graph["resources"])
    return named


def blueprint(baked: Baked) -> dict[str, dict[str, Any]]:
    """Return the services and databases of render.yaml by name, without the slug."""
    document = yaml.safe_load((baked.path / "render.yaml").read_text())
    slug = str(baked.answers["project_slug"])
    listed = [*document["services"], *document["databases"]]
    assert all(one["name"].startswith(slug) for one in listed)
    named = {one["name"].removeprefix(slug).lstrip("-") or "app": one for one in listed}
    assert len(named) == len(listed)
    return named


def settings_of(baked: Baked) -> dict[str, str]:
    """Return the variables and defaults in .env.example. The service's tests check that file."""
    text = (baked.path / ".env.example").read_text()
    return dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))


BY_THE_USER = {"AUTH_KEYS", "SMTP_HOST", "MAIL_FROM", "MAIL_LINK_URL"}
BY_THE_USER |= {"OIDC_ISSUER", "OIDC_AUDIENCE"}


def required_by(baked: Baked) -> set[str]:
    text = (baked.path / ".env.production.template").read_text()
    return set(re.findall(r"^([A-Z_]+)=$", text, re.MULTILINE))


def expected_services(baked: Baked) -> set[str]:
    names = {"app", "database"}
    names |= {"cache"} if baked.answers["redis"] else set()
    return names | ({"worker"} if baked.answers["worker"] != "none" else set())


def test_railway_has_the_chosen_services(on_railway: Baked) -> None:
    named = resources(on_railway)
    assert set(named) == expected_services(on_railway)
    image = named["database"]["source"]["image"]
    assert ("pgvector" in image) == bool(on_railway.answers["pgvector"])
    assert image.endswith("18"), "the version of compose.yaml"


def test_railway_py_and_railway_json_agree(on_railway: Baked) -> None:
    run(on_railway.path, "check-jsonschema", "--schemafile", str(SCHEMAS / "railway.json"),
        "railway.json")  # fmt: skip
    config = json.loads((on_railway.path / "railway.json").read_text())
    named = resources(on_railway)
    assert named["app"]["build"] == config["build"]
    assert named["app"]["deploy"] == config["deploy"]
    assert (on_railway.path / config["build"]["dockerfilePath"]).exists()
    if "worker" in named:
        assert named["worker"]["build"] == config["build"]
        assert named["worker"]["deploy"] == {**config["deploy"], "startCommand": "app worker"}


def test_railway_sets_or_preserves_every_variable(on_railway: Baked) -> None:
    named = resources(on_railway)
    variables = named["app"]["variables"]
    assert set(variables) == set(settings_of(on_railway))
    given = {name for name, value in variables.items() if value["type"] != "preserve"}
    assert required_by(on_railway) - given <= BY_THE_USER
    if "worker" in named:
        app = named["app"]["address"]
        expected = {v: {"type": "reference", "resource": app, "output": v} for v in variables}
        assert named["worker"]["variables"] == expected


def test_railway_references_have_targets(on_railway: Baked) -> None:
    named = resources(on_railway)
    addresses = {resource["address"] for resource in named.values()}
    for resource in named.values():
        for variable in resource.get("variables", {}).values():
            if variable["type"] == "reference":
                assert variable["resource"] in addresses
            for match in REFERENCE.finditer(variable.get("value", "")):
                assert match["service"] in {None, *named}
                assert match["name"].startswith("RAILWAY_"), "variables of Railway"
        for attachment in resource.get("volumeAttachments", {}).values():
            assert attachment["volume"] in addresses


def test_redis_on_platforms_has_the_eviction_of_compose(
    on_railway: Baked, on_render: Baked
) -> None:
    if not on_railway.answers["redis"]:
        assert "cache" not in resources(on_railway)
        assert "cache" not in blueprint(on_render)
        return
    compose = yaml.safe_load((on_railway.path / "compose.yaml").read_text())
    cache = compose["services"]["cache"]
    policy = cache["command"][cache["command"].index("--maxmemory-policy") + 1]
    railway = resources(on_railway)["cache"]
    assert railway["source"]["image"] == cache["image"]
    assert f"--maxmemory-policy {policy}" in railway["deploy"]["startCommand"]
    render = blueprint(on_render)["cache"]
    assert render["maxmemoryPolicy"] == policy


def test_render_has_the_chosen_services(on_render: Baked) -> None:
    run(on_render.path, "check-jsonschema", "--schemafile", str(SCHEMAS / "render.json"),
        "render.yaml")  # fmt: skip
    named = blueprint(on_render)
    assert set(named) == expected_services(on_render)
    assert len({one["region"] for one in named.values()}) == 1, "a private network has one region"
    assert [named[name]["ipAllowList"] for name in {"cache", "database"} & set(named)] == [
        [] for _ in {"cache", "database"} & set(named)
    ]
    if "worker" in named:
        assert named["worker"]["type"] == "pserv", "a background worker has no port"
        assert named["worker"]["dockerCommand"] == "app worker"
    triggers = {one.get("autoDeployTrigger") for one in named.values() if "runtime" in one}
    assert triggers == ({None} if on_render.answers["ci"] == "none" else {"off"}), (
        "each commit is deployed once"
    )


def test_render_variables_are_settings_with_a_source(on_render: Baked) -> None:
    named = blueprint(on_render)
    slug = on_render.answers["project_slug"]
    keys = {v["key"] for v in named["app"]["envVars"]}
    for name in {"app", "worker"} & set(named):
        variables = {v["key"]: v for v in named[name]["envVars"]}
        assert set(variables) <= set(settings_of(on_render))
        assert required_by(on_render) <= set(variables)
        for variable in variables.values():
            for source in {"fromDatabase", "fromService"} & set(variable):
                target = variable[source]
                one = named[target["name"].removeprefix(slug).lstrip("-") or "app"]
                assert one.get("type") == target.get("type")
                provided = {"RENDER_EXTERNAL_HOSTNAME", *keys}
                assert target.get("envVarKey", variable["key"]) in provided


def test_shutdown_times_increase_from_service_to_platform(
    on_railway: Baked, on_render: Baked
) -> None:
    settings = settings_of(on_railway)
    needed = float(settings["DRAIN_SECONDS"]) + float(settings["GRACEFUL_TIMEOUT_SECONDS"])
    compose = yaml.safe_load((on_railway.path / "compose.yaml").read_text())["services"]
    grace = float(compose["app"]["stop_grace_period"].removesuffix("s"))
    named = resources(on_railway)
    apps = {"app", "worker"}
    draining = {named[name]["deploy"]["drainingSeconds"] for name in apps & set(named)}
    render = blueprint(on_render)
    draining |= {render[name]["maxShutdownDelaySeconds"] for name in apps & set(render)}
    assert all(isinstance(seconds, int) for seconds in draining), "a string is ignored"
    assert needed + CLOSING_SECONDS < grace < min(draining)


@pytest.mark.parametrize("worker", ["none", "postgres", "celery"])
def test_prometheus_and_health_checks_of_compose_reach_every_process(
    bake: Bake, worker: str
) -> None:
    folder = bake(worker=worker).path
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    ours = {n: one for n, one in services.items() if one["image"].startswith("example-service:")}
    assert set(ours) == {"app"} | ({"worker"} if worker != "none" else set())
    config = yaml.safe_load((folder / "observability" / "prometheus.yml").read_text())
    found = [one for scrape in config["scrape_configs"] for one in scrape["dns_sd_configs"]]
    assert {name for one in found for name in one["names"]} == set(ours)
    ports = {one["environment"]["PORT"] for one in ours.values()} | {one["port"] for one in found}
    assert ports == {8000}
    assert not any("healthcheck" in one for one in ours.values()), "that of the image"
    needed = set(services.get("worker", {}).get("depends_on", {}))
    assert ("cache" in needed) == (worker == "celery")


def test_health_check_timeouts_exceed_the_longest_start(on_railway: Baked) -> None:
    settings = settings_of(on_railway)
    deploy = resources(on_railway)["app"]["deploy"]
    start = float(settings["DATABASE_WAIT_SECONDS"]) + float(settings["MIGRATION_WAIT_SECONDS"])
    assert deploy["healthcheckTimeout"] > start
    (period,) = re.findall(
        r"^HEALTHCHECK .*--start-period=(\d+)s", (on_railway.path / "Dockerfile").read_text(), re.M
    )
    assert int(period) > start
    asked_by_docker = (on_railway.path / "scripts/healthcheck.py").read_text()
    assert f'"{deploy["healthcheckPath"]}"' in asked_by_docker


def test_production_template_has_no_secrets(on_railway: Baked) -> None:
    text = (on_railway.path / ".env.production.template").read_text()
    values = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert set(values) == set(settings_of(on_railway))
    private = {name for name in values if re.search("(URL|TOKEN|KEYS|SECRETS?|DSN)$", name)}
    private -= {"GITHUB_URL"}  # the default is public
    assert {"DATABASE_URL", "HEALTH_TOKEN"} <= private
    assert not any(values[name] for name in private)


@pytest.mark.containers
@pytest.mark.usefixtures("docker_engine")
def test_redis_start_command_of_railway_works(bake: Bake) -> None:
    """The command begins with the entrypoint of the image, which drops root."""
    redis = resources(bake(**{**EVERY_OPTION, "deploy": "railway"}))["cache"]
    entrypoint, *start = shlex.split(redis["deploy"]["startCommand"])
    assert entrypoint == "docker-entrypoint.sh"
    name = f"test-{os.urandom(4).hex()}"
    try:
        docker(
            "run", "--detach", "--name", name, "--volume", "/data",
            redis["source"]["image"], *start,
        )  # fmt: skip
        wait_until(
            lambda: attempt("exec", name, "redis-cli", "ping").stdout == "PONG\n", seconds=20
        )
        asked = ("maxmemory-policy", "maxmemory", "protected-mode")
        answers = docker("exec", name, "redis-cli", "CONFIG", "GET", *asked).split()
        config = dict(zip(answers[::2], answers[1::2], strict=True))
        assert config["maxmemory-policy"] == "volatile-lru"
        assert config["protected-mode"] == "no"
        assert int(config["maxmemory"]) == 256 * 2**20
    finally:
        docker("rm", "--force", "--volumes", name)


def test_deployment_pages_state_the_configured_times(on_railway: Baked, on_render: Baked) -> None:
    deploy = resources(on_railway)["app"]["deploy"]
    page = (on_railway.path / "docs/deployment/railway.md").read_text()
    assert deploy["healthcheckTimeout"] == 6 * 60
    assert "within six minutes" in page
    assert f"serves for another {deploy['overlapSeconds']} seconds" in page
    assert f"has {deploy['drainingSeconds']} seconds to stop" in page
    seconds = blueprint(on_render)["app"]["maxShutdownDelaySeconds"]
    page = (on_render.path / "docs/deployment/render.md").read_text()
    assert f"a process has {seconds} seconds" in page


EXAMPLES = {
    "fromDatabase": "postgresql://app:f8Zk2q@dpg-1/app",
    "keyvalue": "redis://red-1:6379",
    "RENDER_EXTERNAL_HOSTNAME": "example.onrender.com",
    "generateValue": "B0jrphAPOY7pg92AN0c9MN4yecczLMdwnx4OkA1KFUk=",
    "DATABASE_URL": "postgresql://postgres:f8Zk2q@database.railway.internal:5432/railway",
    "RAILWAY_PUBLIC_DOMAIN": "example.up.railway.app",
    "RAILWAY_PRIVATE_DOMAIN": "cache.railway.internal",
    "AUTH_KEYS": "2026-11:Zq7wN1cT0pVxK4mB8sRj2LdYhU6gEaFo",  # this and the following: by the user
    "SMTP_HOST": "smtp.example.com",
    "MAIL_FROM": "no-reply@example.com",
    "MAIL_LINK_URL": "https://app.example.com/account",
    "OIDC_ISSUER": "https://login.example.com",
    "OIDC_AUDIENCE": "https://api.example.com",
}


def given_by_railway(baked: Baked, name: str) -> dict[str, str]:
    """Return the environment of a service's process."""
    named = resources(baked)
    values: dict[str, str] = {}
    for key, variable in named[name]["variables"].items():
        if variable["type"] == "reference" and variable["resource"] == "service.app":
            values[key] = given_by_railway(baked, "app").get(key, "")
        elif variable["type"] == "reference":
            values[key] = EXAMPLES[variable["output"]]
        elif variable["type"] == "preserve":
            values[key] = EXAMPLES.get(key, "")
        else:
            values[key] = REFERENCE.sub(lambda m: EXAMPLES[m["name"]], variable["value"])
    return values


def given_by_render(baked: Baked, name: str) -> dict[str, str]:
    named = blueprint(baked)
    values: dict[str, str] = {}
    for variable in named[name]["envVars"]:
        key = variable["key"]
        service = variable.get("fromService", {})
        if "value" in variable:
            values[key] = str(variable["value"])
        elif service.get("envVarKey") == key:
            values[key] = given_by_render(baked, "app")[key]
        elif "envVarKey" in service:
            values[key] = EXAMPLES[service["envVarKey"]]
        elif service:
            values[key] = EXAMPLES[service["type"]]
        elif "sync" in variable:
            values[key] = EXAMPLES.get(key, "")
        else:
            values[key] = EXAMPLES[next(kind for kind in variable if kind != "key")]
    return values


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["railway", "render"])
def test_service_accepts_the_variables_of_the_platform(
    bake: Bake, tmp_path: Path, platform: str
) -> None:
    baked = bake(lock=True, auth="accounts", worker="postgres", deploy=platform)
    project = baked.copy_to(tmp_path / "project")
    given = given_by_railway if platform == "railway" else given_by_render
    commit = {"railway": "RAILWAY_GIT_COMMIT_SHA", "render": "RENDER_GIT_COMMIT"}[platform]
    command = [
        "uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable, "python", "-c",
        "from app.settings import load_settings; s = load_settings();"
        "print(s.environment, s.allowed_hosts, s.redis_url is not None, s.commit_sha)",
    ]  # fmt: skip
    settings = settings_of(baked)
    for name in ("app", "worker"):
        env = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", *settings}}
        result = subprocess.run(
            command, cwd=project,
            env={**env, "COMMIT_SHA": "unknown", **given(baked, name), commit: "c0ffee"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        hosts = {"railway": "example.up.railway.app", "render": "example.onrender.com"}
        assert result.stdout.split() == ["production", f"['{hosts[platform]}']", "True", "c0ffee"]
