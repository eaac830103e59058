"""Fuzzing of a service with every option: responses must match the OpenAPI document."""

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from conftest import Bake
from engine import ask
from test_bake import EVERY_OPTION
from test_first_minutes import environment, serving

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)

# A client may call the routes of accounts ten times a minute. Each request has a new address.
# Half of the log-ins with a provider are those with GitHub. Their start sends it no request.
CLIENTS = """
import ipaddress, itertools, schemathesis

addresses = itertools.count(int(ipaddress.ip_address("10.0.0.1")))
names = itertools.cycle(["github", None])

@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers["X-Forwarded-For"] = str(ipaddress.ip_address(next(addresses)))
    kwargs["allow_redirects"] = False
    if "provider" in case.path_parameters and (name := next(names)):
        case.path_parameters["provider"] = name
"""
PROVIDERS = {
    "GITHUB_CLIENT_ID": "fuzz",
    "GITHUB_CLIENT_SECRET": "fuzz",
    "GITHUB_URL": "http://127.0.0.1:9",
}


def log_in(url: str, account: dict[str, str]) -> str:
    form = {"username": account["email"], "password": account["password"]}
    data = urllib.parse.urlencode({"grant_type": "password", **form}).encode()
    with urllib.request.urlopen(f"{url}/accounts/login", data, timeout=10) as answer:
        return str(json.load(answer)["access_token"])


def test_generated_requests_get_documented_responses(
    bake: Bake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = bake(lock=True, **EVERY_OPTION).copy_to(tmp_path / "project")
    sync = ["uv", "sync", "--quiet", "--no-python-downloads", "--python", sys.executable]
    subprocess.run(sync, cwd=project, check=True)
    env = environment(tmp_path, RATE_LIMIT="1000000/second", ENVIRONMENT="test", **PROVIDERS)
    with serving([".venv/bin/app", "dev", "--no-reload"], project, env) as url:
        account = {"email": "fuzz@example.com", "password": "of-this-test-alone"}
        assert ask(f"{url}/accounts", method="POST", body=account).status == 201
        (tmp_path / "clients.py").write_text(CLIENTS)
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {log_in(url, account)}"),
            *("--checks", CHECKS, "--max-examples", "50", "--seed", "1", "--no-color"),
        ]
        result = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "SCHEMATHESIS_HOOKS": "clients"},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (generated,) = re.findall(r"(\d+) generated, (\d+) passed", result.stdout)
    with capsys.disabled():
        print(f"\nfuzzing with every option: {generated[0]} generated, {generated[1]} passed")
    assert int(generated[0]) > 500
