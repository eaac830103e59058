"""The files on the pages of platforms without an option: Cloud Run, ECS and Fly.io."""

import json
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from conftest import Bake, Baked
from test_bake import EVERY_OPTION
from test_deployment import settings_of

CLOSING_SECONDS = 10  # docs/operations.md: to close connections, after drain and requests
GOOGLE = "google-api-python-client==2.202.0"  # contains the schemas of Google's APIs
AMAZON = "botocore==1.44.8"  # checks parameters before it sends a request
READ_SCHEMA = """
import pathlib, googleapiclient
folder = pathlib.Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
print((folder / "run.v1.json").read_text())
"""
REGISTER = """
import json, sys, botocore.session, botocore.stub
client = botocore.session.get_session().create_client("ecs", region_name="eu-central-1")
with botocore.stub.Stubber(client) as stubber:
    stubber.add_response("register_task_definition", {})
    client.register_task_definition(**json.load(sys.stdin))
"""

pytestmark = pytest.mark.slow


def block_of(baked: Baked, page: str, language: str) -> str:
    text = (baked.path / "docs" / "deployment" / page).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


def python_with(package: str, code: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["uv", "run", "--quiet", "--no-project", "--with", package, "python", "-c", code]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=300
    )


def unknown_fields(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """Return the fields of a document that its schema does not have, or that have another type."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    match schema.get("type"):
        case "object" if "properties" in schema:
            return [
                problem
                for name, field in value.items()
                for problem in (
                    unknown_fields(field, schema["properties"][name], schemas)
                    if name in schema["properties"]
                    else [name]
                )
            ]
        case "object":
            of_all = schema["additionalProperties"]
            return [p for field in value.values() for p in unknown_fields(field, of_all, schemas)]
        case "array":
            return [p for item in value for p in unknown_fields(item, schema["items"], schemas)]
        case kind:
            types = {"string": str, "integer": int, "boolean": bool}
            return [] if isinstance(value, types[str(kind)]) else [f"{value} is no {kind}"]


def limits_of(baked: Baked) -> dict[str, float]:
    return {n: float(v) for n, v in settings_of(baked).items() if v.isdecimal()}


def test_cloud_run_file_matches_the_schema_of_google(bake: Bake) -> None:
    baked = bake(**EVERY_OPTION)
    service = yaml.safe_load(block_of(baked, "cloud-run.md", "yaml"))
    result = python_with(GOOGLE, READ_SCHEMA)
    assert result.returncode == 0, result.stderr
    schemas = json.loads(result.stdout)["schemas"]
    assert unknown_fields(service, schemas["Service"], schemas) == []
    wrong = {**service, "spec": {"template": {"spec": {"containerConcurency": 80}}}}
    assert unknown_fields(wrong, schemas["Service"], schemas) == ["containerConcurency"]
    (container,) = service["spec"]["template"]["spec"]["containers"]
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values.keys() <= settings_of(baked).keys() | {"ENVIRONMENT"}
    assert float(values["DRAIN_SECONDS"]) + float(values["GRACEFUL_TIMEOUT_SECONDS"]) < 10
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 240
    assert_served([probe["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]])


def test_ecs_file_has_the_parameters_of_amazon(bake: Bake) -> None:
    baked = bake(**EVERY_OPTION)
    definition = json.loads(block_of(baked, "ecs.md", "json"))
    result = python_with(AMAZON, REGISTER, json.dumps(definition))
    assert result.returncode == 0, result.stderr
    result = python_with(AMAZON, REGISTER, json.dumps({**definition, "volume": []}))
    assert 'Unknown parameter in input: "volume"' in result.stderr
    (container,) = definition["containerDefinitions"]
    names = {entry["name"] for entry in [*container["environment"], *container["secrets"]]}
    assert names <= settings_of(baked).keys() | {"ENVIRONMENT"}
    limits = limits_of(baked)
    stop = limits["DRAIN_SECONDS"] + limits["GRACEFUL_TIMEOUT_SECONDS"] + CLOSING_SECONDS
    assert stop <= container["stopTimeout"] <= 120, "the longest of Fargate"
    dockerfile = (baked.path / "Dockerfile").read_text(encoding="utf-8")
    command = ", ".join(f'"{part}"' for part in container["healthCheck"]["command"][1:])
    assert f"CMD [{command}]" in dockerfile
    assert f"USER {container['user']}" in dockerfile


def test_fly_file_has_the_paths_and_limits_of_the_service(bake: Bake) -> None:
    baked = bake(**EVERY_OPTION)
    document = tomllib.loads(block_of(baked, "fly.md", "toml"))
    assert document["env"].keys() <= settings_of(baked).keys() | {"ENVIRONMENT"}
    limits = limits_of(baked)
    stop = limits["DRAIN_SECONDS"] + limits["GRACEFUL_TIMEOUT_SECONDS"] + CLOSING_SECONDS
    assert document["kill_timeout"] >= stop
    assert document["kill_signal"] == "SIGTERM"
    assert document["http_service"]["internal_port"] == limits["PORT"]
    assert document["deploy"]["release_command"] == "app migrate"
    assert_served([check["path"] for check in document["http_service"]["checks"]])


def assert_served(paths: list[str]) -> None:
    assert set(paths) <= {"/health/startup", "/health/live", "/health/ready"}
