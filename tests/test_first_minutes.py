"""The commands of the README, in a fresh clone and in an empty folder."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, Bake
from engine import free_port

pytestmark = [pytest.mark.slow, pytest.mark.posix]

BARE_PATH = "/usr/bin:/bin"  # has Python and pip, but not uv


def environment(folder: Path, **variables: str) -> dict[str, str]:
    dropped = {"VIRTUAL_ENV", "DATABASE_URL", "REDIS_URL", "PYTEST_DEBUG_TEMPROOT"}
    ours = {k: v for k, v in os.environ.items() if k not in dropped}
    return {**ours, "TMPDIR": str(folder), "PORT": str(free_port()), **variables}


@contextmanager
def serving(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run a command until it serves, and end it with Ctrl-C."""
    log = Path(env["TMPDIR"]) / "serving.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
        )
    url = f"http://localhost:{env['PORT']}"
    try:
        deadline = time.monotonic() + 180
        while not answers(f"{url}/health/ready"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert url in log.read_text(), "the command prints its URL"
        yield url
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.unlink()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of running processes that name a folder.

    Processes that are ending get 10 s: the resource tracker of multiprocessing outlives its parent.
    """
    deadline = time.monotonic() + 10
    while True:
        command = ["ps", "-ww", "-eo", "args"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        found = [line for line in listing.stdout.splitlines() if str(folder) in line]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_make_demo_with_only_python_serves_and_leaves_nothing(
    repository: Path, tmp_path: Path
) -> None:
    clone, temporary = tmp_path / "clone", tmp_path / "tmp"
    shutil.copytree(repository, clone)
    temporary.mkdir()
    env = environment(temporary, PATH=BARE_PATH)
    assert shutil.which("uv", path=BARE_PATH) is None
    with serving(["make", "demo"], clone, env) as url:
        assert answers(f"{url}/bookmarks")
        assert answers(f"{url}/docs")
    assert list(temporary.glob("tmp.*")) == []  # only lock files of uv and PostgreSQL are left
    assert processes_of(tmp_path) == []


def blocks(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_commands_bake_and_serve(repository: Path, tmp_path: Path) -> None:
    (plain,) = [block for block in blocks(ROOT / "README.md") if "uvx cookiecutter" in block]
    *bake, serve = plain.replace("gh:org/template", str(repository)).strip().splitlines()
    env = environment(tmp_path)
    env["HOME"] = str(tmp_path)  # cookiecutter saves answers there
    env["UV_CACHE_DIR"] = subprocess.run(
        ["uv", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    script = "\n".join([*bake, "pwd"])
    enter = "\n" * 20  # accept every default
    result = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, env=env, input=enter, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    project = Path(result.stdout.splitlines()[-1])
    assert (project / "uv.lock").exists()
    with serving(serve.split(), project, env) as url:
        assert answers(f"{url}/bookmarks")
    assert processes_of(tmp_path) == []


def test_commands_of_the_accounts_page_succeed(bake: Bake, tmp_path: Path) -> None:
    project = bake(lock=True, auth="accounts").copy_to(tmp_path / "project")
    *by_hand, make_secret, _mailpit = blocks(project / "docs" / "accounts.md")
    uv_run = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable]
    env = environment(tmp_path)
    secret = run_script(make_secret, project, env)
    production = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": "postgresql://app:f8Zk2q@db/app",
        "ALLOWED_HOSTS": "api.example.com",
        "AUTH_KEYS": f"2026-11:{secret}",
        "SMTP_HOST": "smtp.example.com",
        "MAIL_FROM": "no-reply@example.com",
        "MAIL_LINK_URL": "https://app.example.com/account",
    }
    load = "from app.settings import load_settings; load_settings()"
    subprocess.run(
        [*uv_run, "python", "-c", load], cwd=project, env={**env, **production}, check=True
    )
    with serving([*uv_run, "app", "dev"], project, env) as url:
        script = "\n".join(after_the_mails(by_hand)).replace("http://localhost:8000", url)
        printed = run_script(script, project, env)
        with urllib.request.urlopen(page_of_mails(env), timeout=30) as page:
            assert page.read().decode().count("hopper@navy.example") == 1
    documents = re.findall(r"{.*?}(?=[{n]|$)", printed)
    registered, me, *_, exported = [json.loads(found) for found in documents]
    assert registered == me
    assert me["email"] == "grace@navy.example"
    assert exported["account"]["email"] == "hopper@navy.example"
    assert len(exported["sessions"]) == 0, "it was revoked"
    assert processes_of(project) == []


def page_of_mails(env: dict[str, str]) -> str:
    """Return the URL that a serving `app dev` has printed."""
    log = Path(env["TMPDIR"], "serving.log").read_text()
    found = re.search(r"\bpage=(http://localhost:\d+)", log)
    assert found is not None, log
    return found[1]


def after_the_mails(commands: list[str]) -> Iterator[str]:
    """Let each block that prints a mail wait until the service has sent it."""
    count = 0
    for block in commands:
        if "app mails" in block:
            count += 1
            listing = "find .data -path '.data/mail/*.eml' | wc -l"
            yield f'until [ "$({listing})" -ge {count} ]; do sleep 0.1; done'
        yield block


def run_script(script: str, folder: Path, env: dict[str, str]) -> str:
    result = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def test_every_app_command_without_settings_succeeds(bake: Bake, tmp_path: Path) -> None:
    project = bake(lock=True).copy_to(tmp_path / "project")
    env = environment(tmp_path)
    app = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable, "app"]
    for command in ("migrate", "seed", "check", "env", "routes", "openapi"):
        result = subprocess.run(
            [*app, command],
            cwd=project, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
    assert processes_of(project) == []
