"""Every valid combination of answers: files, residue, format. Installs nothing."""

import ast
import contextlib
import functools
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import QUESTIONS, TEMPLATE, Bake, Baked, default_answers

from fastapi_service_answers import NEEDS, is_chosen

Texts = dict[str, str]  # by path


def is_supported(answers: dict[str, object]) -> bool:
    return all(is_chosen(answers, n) or not is_chosen(answers, o) for o, (n, _) in NEEDS.items())


CHOICES = {
    name: value if isinstance(value, list) else [True, False]
    for name, value in QUESTIONS.items()
    if isinstance(value, list | bool) and not name.startswith("_")
}
WORDS = [
    {"python_version": version, "license": name}
    for version, name in itertools.product(CHOICES["python_version"], CHOICES["license"])
]
OPTIONS = [name for name in CHOICES if name not in WORDS[0]]
NO_OPTION = {name: "none" if "none" in CHOICES[name] else False for name in OPTIONS}
EVERY_OPTION = dict.fromkeys(OPTIONS, True) | {
    "auth": "accounts",
    "worker": "postgres",
    "ci": "github",
    "deploy": "railway",
}
EVERY_COMBINATION = [
    dict(zip(OPTIONS, values, strict=True)) | WORDS[number % len(WORDS)]
    for number, values in enumerate(itertools.product(*(CHOICES[o] for o in OPTIONS)))
]
COMBINATIONS = [row for row in EVERY_COMBINATION if is_supported(row)]
COUNTS = (9216, 13824)  # valid combinations, all combinations
PARTS = 2  # of the valid combinations, for two workers; most files of one are not in the other
# Words that a project without the option must not contain.
RESIDUE = {
    "redis": re.compile(r"\bredis(_|\b)|valkey|hiredis", re.IGNORECASE),
    "worker": re.compile(
        r"app (worker|jobs)|app[./](jobs|worker)|enqueue|heartbeat|worker.(concurrency|port)"
        r"|\bjobs\.",
        re.IGNORECASE,
    ),
    "postgres": re.compile(r"pgqueuer|croniter|typer\b", re.IGNORECASE),
    "celery": re.compile(r"celery|kombu|billiard", re.IGNORECASE),
    "webhooks": re.compile(r"webhook|whsec|\bhub\b|\bdeliver(y|ies)\b", re.IGNORECASE),
    "pgvector": re.compile(r"pgvector\b|passages?\b|embedding|hnsw", re.IGNORECASE),
    "ci": re.compile(r"\bCI\b|check_rollback|NOTIFY_URL|ci-cd"),
    "github": re.compile(
        r"github\.(?!com|io)|dependabot|GITHUB_(?!CLIENT_|URL)|\bGitHub\b|ghcr\.io/\$"
    ),
    "gitlab": re.compile(r"gitlab|\bCI_[A-Z]|uv-cache", re.IGNORECASE),
    "deploy": re.compile(r"PRODUCTION_URL|RUN_URL|deploy_to_|rollback\.(env|yml)"),
    "metrics": re.compile(r"metrics_|/metrics|prometheus|grafana|promtool", re.IGNORECASE),
    "rate_limit": re.compile(r"rate.?limit", re.IGNORECASE),
    "tracing": re.compile(
        r"tracing(?!\": False)|\btraces?\b|trace_|traceparent|otlp|\bspans?\b", re.IGNORECASE
    ),
    "sentry": re.compile(r"sentry|error.tracking|\bdsn\b", re.IGNORECASE),
    "railway": re.compile(r"railway", re.IGNORECASE),
    "kubernetes": re.compile(r"kubernetes|kubectl|kustomiz", re.IGNORECASE),
    "render": re.compile(
        r"\bRender\b|(?i:render[._](com|yaml|git|external|api)|onrender|to_render\b|/render\.md)"
    ),
    "auth": re.compile(
        r"(?<!is no )(?<!service[ -])\baccounts?(_id)?\b|app[./]auth\b|\bowner_id\b|\blogged_in\b"
        r"|pyjwt|\boidc|openid|jwks|^cryptography=",
        re.IGNORECASE,
    ),
    "oidc": re.compile(
        r"(?<!authlib\.)\boidc(?!_provider\b)|_oidc|provider_accounts|smoke_token",
        re.IGNORECASE,
    ),
    "accounts": re.compile(
        r"features[./]accounts|\baccounts[./](?!google)|auth_keys|refresh.token|\bsessions?_|\blog_in\b"
        r"|argon2|pwdlib|multipart|authlib|joserfc|login_provider|_client_secret",
        re.IGNORECASE,
    ),
}
# Files in which the words have another meaning: GitHub also sends webhooks, and logs users in.
OTHER_MEANING = {"github": re.compile("webhook|accounts|login_provider|provider_logins")}
MARKERS = re.compile(r"(#|<!--) (end )?option\b|in the template only|option: ")
JINJA = re.compile(r"\{%|\{\{ ?cookiecutter")
UNCOMMON = {
    "project_name": "Größe & O'Brien's (2)",
    "project_slug": "x" * 50,
    "description": "It's Ünïcode: 日本語 # and, [all] that; " + "y" * 150,
    "author_name": "Conan O'Brien-Ñandú",
    "author_email": "a.b+c@mail.example.co.uk",
}


def name_of(combination: dict[str, object]) -> str:
    return "-".join(str(value) for value in combination.values())


def read_template(repository: Path) -> dict[str, str]:
    template = repository / TEMPLATE
    return {
        path.relative_to(template).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(template.rglob("*"))
        if path.is_file()
    }


def remember_texts(hook: ModuleType, patch: pytest.MonkeyPatch) -> None:
    """Cache the results of the hook: few options and words occur in each text."""

    @functools.cache
    def options_in(text: str) -> set[str]:
        lines = (hook.BEGIN.fullmatch(x) or hook.TRAILING.fullmatch(x) for x in text.split("\n"))
        return {name for line in lines if line for name in line["names"].split(", ")}

    patterns = {
        hook.ANY_WORD: hook.WORDS.values(),
        hook.PYTHON_VERSION: ["python_version"],
        hook.VERSION: ["_version"],
        hook.PGVECTOR_IMAGE: ["pgvector"],
        hook.LICENSE: ["license"],
    }

    @functools.cache
    def answers_in(text: str) -> list[str]:
        found = (answers for pattern, answers in patterns.items() if pattern.search(text))
        return list(itertools.chain.from_iterable(found))

    drop, fill_in = functools.cache(hook.drop_options), hook.fill_in

    @functools.cache
    def fill(text: str, used: tuple[tuple[str, object], ...]) -> str:
        return fill_in(text, default_answers() | dict(used))

    patch.setattr(
        hook, "drop_options", lambda text, of: drop(text, frozenset(of & options_in(text)))
    )
    patch.setattr(
        hook,
        "fill_in",
        lambda text, of: fill(text, tuple((name, of[name]) for name in answers_in(text))),
    )


@functools.cache
def options_named_in(line: str) -> frozenset[str]:
    return frozenset(option for option, words in RESIDUE.items() if words.search(line))


def test_combinations_cover_every_answer_and_option(hook: ModuleType) -> None:
    assert set(RESIDUE) == set(hook.OWNED)
    assert all(any(words.items() <= row.items() for row in COMBINATIONS) for words in WORDS)
    assert (len(COMBINATIONS), len(EVERY_COMBINATION)) == COUNTS
    assert len(COMBINATIONS) % PARTS == 0


@pytest.mark.posix
@pytest.mark.parametrize("part", range(PARTS))
def test_every_combination_has_no_residue_and_passes_ruff(
    part: int,
    hook: ModuleType,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Check each different file that the hook returns once."""
    started = time.monotonic()
    template = read_template(repository)
    remember_texts(hook, monkeypatch)
    words_in: dict[tuple[str, str], set[str]] = {}
    size = math.ceil(len(COMBINATIONS) / PARTS)
    combinations = COMBINATIONS[part * size : (part + 1) * size]
    for number, combination in enumerate(combinations):
        files = hook.rewrite(template, default_answers() | combination)
        chosen = hook.chosen_options(combination)
        new = {file: text for file, text in files.items() if (file, text) not in words_in}
        parse(new)
        for file, text in new.items():
            assert not MARKERS.search(text), file
            assert not JINJA.search(text), file
            words_in[file, text] = {
                option
                for line in (file, *text.splitlines())
                for option in options_named_in(line)
                if not (option in OTHER_MEANING and OTHER_MEANING[option].search(file))
            }
        for file in files.items():
            left = words_in[file] - chosen
            assert not left, f"{name_of(combination)}: {file[0]} has words of options {left}"
        follow_migrations(files)
        check_words(files, combination)
        write_for_ruff(tmp_path / str(number), files, new)
    modules = [
        "app",
        *(Path(file).stem for file in template if file.startswith(("scripts/", "tests/"))),
    ]
    lint(tmp_path, "--config", f"lint.isort.known-first-party = {modules}")
    with capsys.disabled():
        print(
            f"\n{len(combinations)} combinations of {', '.join(OPTIONS)}: "
            f"{len(words_in)} different files in {time.monotonic() - started:.0f} s",
            file=sys.stderr,  # pytest-xdist shows it
        )


@pytest.mark.parametrize(
    "combination", [NO_OPTION, EVERY_OPTION, *COMBINATIONS[::700]], ids=name_of
)
def test_cookiecutter_writes_the_files_of_the_hook(
    bake: Bake, hook: ModuleType, repository: Path, combination: dict[str, object]
) -> None:
    baked = bake(**combination)
    expected = hook.rewrite(read_template(repository), baked.answers)
    assert {path: content.decode() for path, content in baked.files().items()} == expected
    lint(baked.path)


def check_words(files: Texts, combination: dict[str, object]) -> None:
    (version,) = re.findall(r'^python_version = "(.*)"$', files["pyproject.toml"], re.MULTILINE)
    assert version == combination["python_version"]
    (license_name,) = re.findall(r'^license = "(.*)"$', files["pyproject.toml"], re.MULTILINE)
    bases = re.findall(r"^FROM python:(.*)-slim", files["Dockerfile"], re.MULTILINE)
    assert set(bases) == {combination["python_version"]}
    assert str(combination["license"]).removeprefix("BSD-") in license_name
    assert ("Apache License" in files["LICENSE"]) == (combination["license"] == "Apache-2.0")
    assert not any(file.startswith("licenses/") for file in files)


def write_for_ruff(folder: Path, files: Texts, new: Texts) -> None:
    """Write new Python files, with pyproject.toml and every `__init__.py`."""
    if not any(file.endswith(".py") for file in new):
        return
    for file, text in files.items():
        is_new = file.endswith(".py") and file in new
        if is_new or file.endswith("__init__.py") or file == "pyproject.toml":
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")


def parse(files: Texts) -> None:
    """Parse every file."""
    for path, text in files.items():
        assert text.endswith("\n") or not text, path
        assert not text.endswith("\n\n"), path
        match Path(path).suffix:
            case ".py":
                ast.parse(text, path)
            case ".toml":
                tomllib.loads(text)
            case ".json":
                json.loads(text)
            case ".yml" | ".yaml":
                list(yaml.load_all(text, yaml.CSafeLoader))
            case ".sh":
                subprocess.run(["sh", "-n"], input=text, text=True, check=True)
        if path == "Makefile":
            command = ["make", "-n", "-f", "-", "help"]
            subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def follow_migrations(files: Texts) -> None:
    """Check that the migrations form one chain from 0001 on."""
    paths = sorted(path for path in files if "/migrations/versions/" in path)
    for number, path in enumerate(paths, 1):
        before = f'"{number - 1:04d}"' if number > 1 else "None"
        lines = f'\nrevision = "{number:04d}"\ndown_revision = {before}\n'
        assert Path(path).name.startswith(f"{number:04d}_"), path
        assert lines in files[path], path


def lint(folder: Path, *options: str) -> None:
    for arguments in (["check", "--no-cache", *options], ["format", "--check", "--no-cache"]):
        command = [Path(sys.executable).with_name("ruff"), *arguments]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.posix
def test_unusual_answers_give_valid_files(bake: Bake) -> None:
    baked = bake(**UNCOMMON)
    files = baked.files()
    parse({path: content.decode() for path, content in files.items()})
    lint(baked.path)
    project = tomllib.loads(files["pyproject.toml"].decode())["project"]
    assert project["name"] == UNCOMMON["project_slug"]
    assert project["description"] == UNCOMMON["description"]
    assert project["authors"] == [
        {"name": UNCOMMON["author_name"], "email": UNCOMMON["author_email"]}
    ]
    everything = b"".join(files.values())
    for word in (b"example-service", b"Example Service", b"Ada Lovelace", b"ada@example.com"):
        assert word not in everything


@pytest.mark.posix
def test_bake_with_every_option_equals_the_template(
    bake: Bake, hook: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "chosen_options", lambda _answers: set(hook.OWNED))
    project = tmp_path / "example-service"
    shutil.copytree(repository / TEMPLATE, project)
    hook.rewrite_project(project, default_answers() | EVERY_OPTION)
    fence = re.compile(r"\s*(#|<!--) (end option|option: [a-z_, ]+)( -->)?")
    trailing = re.compile(r"  # option: [a-z_, ]+$")
    files = Baked(project, {}).files()
    template = repository / TEMPLATE
    expected = {}
    for path in sorted(p for p in template.rglob("*") if p.is_file()):
        name = path.relative_to(template).as_posix()
        if name.startswith("licenses/"):
            continue
        lines = path.read_text(encoding="utf-8").split("\n")
        lines = [line for line in lines if not line.endswith("# in the template only")]
        lines = [trailing.sub("", line) for line in lines if not fence.fullmatch(line)]
        expected[name] = hook.VERSION.sub(str(QUESTIONS["_version"]), "\n".join(lines))
    assert {name: content.decode() for name, content in files.items()} == expected
    assert (bake(**EVERY_OPTION).path / "scripts" / "startup.sh").stat().st_mode & 0o111


def test_template_has_no_jinja_and_valid_python(repository: Path) -> None:
    for path in sorted(p for p in (repository / TEMPLATE).rglob("*") if p.is_file()):
        assert not JINJA.search(path.read_text(encoding="utf-8")), path
        if path.suffix == ".py":
            ast.parse(path.read_bytes())


def test_module_has_at_most_250_lines(repository: Path) -> None:
    for folder in ("scripts", "src"):
        for path in (repository / TEMPLATE / folder).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path


def test_option_has_at_most_three_lines_in_main(hook: ModuleType, repository: Path) -> None:
    main = (repository / TEMPLATE / "src" / "app" / "main.py").read_text(encoding="utf-8")
    marked = [m for line in main.splitlines() if (m := hook.TRAILING.fullmatch(line))]
    lines = Counter(name for match in marked for name in match["names"].split(", "))
    assert marked
    assert {name for name, count in lines.items() if count > 3} == set()


def test_every_file_of_an_option_exists(hook: ModuleType, repository: Path) -> None:
    for paths in hook.OWNED.values():
        for path in paths:
            assert (repository / TEMPLATE / path).exists(), path
    assert set(hook.OWNED) == {*OPTIONS, *(c for q in hook.CHOICES for c in CHOICES[q])} - {"none"}


def test_clone_with_crlf_bakes_lf(repository: Path, home: Path, tmp_path: Path, bake: Bake) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(repository, clone)
    for path in (p for p in (clone / TEMPLATE).rglob("*") if p.is_file()):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    result = cookiecutter(clone, home, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    baked = Baked(tmp_path / "out" / "example-service", default_answers())
    assert baked.files() == bake().files()


def cookiecutter(
    template: Path, home: Path, output: Path, *arguments: str, path: str = ""
) -> subprocess.CompletedProcess[str]:
    output.mkdir(exist_ok=True)
    options = [argument for argument in arguments if argument.startswith("-")]
    values = [argument for argument in arguments if not argument.startswith("-")]
    return subprocess.run(
        [*COMMAND, "--config-file", home, "--no-input", "-o", output, *options, template, *values],
        env={**os.environ, "PATH": path, "TMPDIR": str(output.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


COMMAND = [sys.executable, "-m", "cookiecutter"]


def test_broken_template_leaves_nothing(repository: Path, home: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(repository, clone)
    (clone / TEMPLATE / "broken.md").write_text("<!-- option: redis -->\n")
    result = cookiecutter(clone, home, tmp_path / "out")
    assert result.returncode != 0
    assert "broken.md: an option without an end" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_development_files_of_the_template_are_not_baked(
    repository: Path, home: Path, tmp_path: Path, bake: Bake
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(repository, clone)
    template = clone / TEMPLATE
    (template / ".env").write_text("HEALTH_TOKEN=of-this-laptop")
    (template / "uv.lock").touch()
    for folder in (".venv", ".data", "src/app/__pycache__", ".mypy_cache"):
        (template / folder).mkdir()
        (template / folder / "file").touch()
    assert cookiecutter(clone, home, tmp_path / "out").returncode == 0
    assert Baked(tmp_path / "out" / "example-service", {}).files() == bake().files()


def test_overwriting_bake_leaves_files_of_the_user(
    repository: Path, home: Path, tmp_path: Path, bake: Bake
) -> None:
    project = tmp_path / "out" / "example-service"
    mine = {
        ".env": b"HEALTH_TOKEN=mine\r\n",
        ".data/postgres/PG_VERSION": b"18\n",
        ".venv/pyvenv.cfg": b"home = mine\n",
        "uv.lock": b"mine\n",
        "infra/notes.txt": b"Example Service\r\n",
        ".git/config": b"Ada Lovelace\r\n",
    }
    for name, content in mine.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    time.sleep(0.05)  # files of the user are older than the bake
    result = cookiecutter(repository, home, tmp_path / "out", "--overwrite-if-exists",
                          "project_name=Order Service", "project_slug=example-service")  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name, content in mine.items():
        assert (project / name).read_bytes() == content, name
    baked = bake(project_name="Order Service", project_slug="example-service")
    for name, content in baked.files().items():
        assert (project / name).read_bytes() == content, name
    assert not (project / ".unfinished").exists()


def test_bake_with_ascii_console_and_unicode_name_succeeds(
    repository: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = cookiecutter(repository, home, tmp_path / "out", "project_name=Größe Service")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "grosse-service" / "pyproject.toml").exists()


def test_failed_bake_with_keep_option_keeps_the_project(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(repository, clone)
    (clone / TEMPLATE / "broken.md").write_text("<!-- option: redis -->\n")
    result = cookiecutter(clone, home, tmp_path / "out", "--keep-project-on-failure")
    assert result.returncode != 0
    time.sleep(1.5)  # the background process waits for a second
    assert (tmp_path / "out" / "example-service" / "broken.md").exists()


def test_existing_folder_is_refused_and_unchanged(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "out" / "example-service" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = cookiecutter(repository, home, tmp_path / "out")
    assert result.returncode == 1
    assert [p.name for p in mine.parent.iterdir()] == ["mine.txt"]


@pytest.mark.posix
@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$"])
def test_bake_with_failing_uv_succeeds_without_a_lock(
    repository: Path, home: Path, tmp_path: Path, bake: Bake, script: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "uv").chmod(0o755)
    result = cookiecutter(repository, home, tmp_path / "out", path=f"{tmp_path}/bin:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert "  uv add --constraints constraints.txt fastapi\n  uv run app dev" in result.stdout
    assert Baked(tmp_path / "out" / "example-service", {}).files() == bake().files()


def is_settled(project: Path, whole: dict[str, bytes]) -> bool:
    try:
        return not project.exists() or Baked(project, {}).files() == whole
    except FileNotFoundError:
        return False  # a file was removed meanwhile


@pytest.mark.posix
def test_interrupted_bake_leaves_a_complete_project_or_none(
    repository: Path, home: Path, tmp_path: Path, bake: Bake
) -> None:
    """Press Ctrl-C at different times."""
    whole, outcomes = bake().files(), set()
    for attempt in range(12):
        output = tmp_path / str(attempt)
        output.mkdir()
        process = subprocess.Popen(
            [*COMMAND, "--config-file", home, "--no-input", "-o", output, repository],
            env={**os.environ, "PATH": "", "TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        project = output / "example-service"
        while process.poll() is None and not (project / "tests").exists():
            time.sleep(0.001)
        time.sleep(attempt * 0.008)  # the hook starts, runs or has ended
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not is_settled(project, whole):
            time.sleep(0.05)
        outcomes.add("none" if not project.exists() else "whole")
        if project.exists():
            assert Baked(project, {}).files() == whole, f"incomplete project, attempt {attempt}"
    assert outcomes
