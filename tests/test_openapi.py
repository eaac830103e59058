"""The OpenAPI document, checked by linters and used by generated clients."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Bake
from node import needs_npx, npx, run
from test_bake import EVERY_OPTION, NO_OPTION
from test_first_minutes import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.posix]

REDOCLY, SPECTRAL = "@redocly/cli@2.77.0", "@stoplight/spectral-cli@6.16.3"
ANSWERS: dict[str, dict[str, object]] = {
    "every": EVERY_OPTION,
    "default": {},
    "none": {**NO_OPTION, "license": "Proprietary", "author_name": "Lovelace, Ada"},
}
PROGRAMS = ROOT / "tests" / "clients"
PACKAGE = {
    "private": True,
    "type": "module",
    "dependencies": {
        "openapi-fetch": "0.17.0",
        "openapi-typescript": "7.13.0",
        "typescript": "5.9.3",
    },
}
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "noEmitOnError": True,
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2022", "dom", "dom.iterable"],
        "outDir": "out",
    }
}
# Each generated client passes *args on to httpx.
MYPY = """
[mypy]
strict = true
[mypy-client.client]
disable_error_code = arg-type
"""


@pytest.fixture(scope="module")
def projects(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bake and install services, by the name of their answers."""
    made = {}
    for name, answers in ANSWERS.items():
        folder = tmp_path_factory.mktemp(name)
        project = made[name] = bake(lock=True, **answers).copy_to(folder / "project")
        sync = ["uv", "sync", "--quiet", "--no-python-downloads", "--python", sys.executable]
        sync += [] if name == "every" else ["--no-dev"]
        subprocess.run(sync, cwd=project, env=environment(folder), check=True)
    return made


@pytest.fixture(scope="module")
def documents(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the OpenAPI document of each service into a folder."""
    folder = tmp_path_factory.mktemp("documents")
    for name, project in projects.items():
        command = [project / ".venv" / "bin" / "app", "openapi"]
        printed = subprocess.run(command, cwd=project, capture_output=True, check=True)
        assert printed.stderr == b""
        (folder / f"{name}.json").write_bytes(printed.stdout)
    return folder


@pytest.fixture(scope="module")
def url(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service with every option, and yield its URL."""
    env = environment(tmp_path_factory.mktemp("service"))
    with serving([".venv/bin/app", "dev", "--no-reload"], projects["every"], env) as url:
        yield url


@needs_npx
def test_openapi_documents_pass_redocly(documents: Path) -> None:
    files = [f"{name}.json" for name in ANSWERS]
    # Its recommended rules, with warnings as errors.
    command = ("redocly", "lint", "--extends", "recommended-strict", *files)
    output = npx(*command, package=REDOCLY, folder=documents)
    assert output.count("validated in") == len(ANSWERS)


@needs_npx
def test_openapi_documents_pass_spectral(documents: Path) -> None:
    files = [f"{name}.json" for name in ANSWERS]
    (documents / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    command = ("spectral", "lint", "--ruleset", "rules.yaml", "--fail-severity", "hint", *files)
    assert "No results" in npx(*command, package=SPECTRAL, folder=documents)


def test_documents_name_author_and_license(documents: Path) -> None:
    info = {name: json.loads((documents / f"{name}.json").read_text())["info"] for name in ANSWERS}
    assert info["default"]["contact"] == {"name": "Ada Lovelace", "email": "ada@example.com"}
    assert info["default"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert info["none"]["contact"]["name"] == "Lovelace, Ada"
    assert info["none"]["license"]["identifier"] == "LicenseRef-Proprietary"


def test_generated_python_client_works(documents: Path, url: str, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}  # it runs ruff
    env["MYPY_CACHE_DIR"] = str(tmp_path / "mypy")
    (tmp_path / "mypy.ini").write_text(MYPY)
    shutil.copy(PROGRAMS / "bookmarks.py", tmp_path)
    generate = [
        *(programs / "openapi-python-client", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", documents / "every.json", "--output-path", "client"),
    ]
    for command in (
        generate,
        [programs / "mypy", "--config-file", "mypy.ini", "client", "bookmarks.py"],
        [sys.executable, "bookmarks.py", url],
    ):
        result = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr


@needs_npx
def test_generated_typescript_client_works(documents: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps(PACKAGE))
    (tmp_path / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    shutil.copy(PROGRAMS / "bookmarks.ts", tmp_path)
    run(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund"], tmp_path)
    programs = tmp_path / "node_modules" / ".bin"
    document = documents / "every.json"
    run([programs / "openapi-typescript", document, "--output", "schema.ts"], tmp_path)
    run([programs / "tsc"], tmp_path)
    run(["node", "out/bookmarks.js", url], tmp_path)
