"""Development with Docker: without Python on the host, and with only the servers in containers."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import Bake
from engine import Stack, ask, docker, free_port, wait_until
from test_bake import EVERY_OPTION, NO_OPTION
from test_docs import DEVELOPMENT, in_container, install, run_block, shell_blocks
from test_first_minutes import environment, serving

pytestmark = pytest.mark.containers

FILES = ("compose.yaml", "compose.dev.yaml")
PAGE = Path("docs", "containers.md")
VERSIONS = Path("src", "app", "migrations", "versions")
NOT_ROOT = 12345  # no user of the image, and not the default of HOST_UID


@dataclass(frozen=True)
class Person:
    """An ordinary user of Docker, with a project and without Python."""

    stack: Stack
    user: tuple[int, int]
    config: Path  # of the docker program

    @property
    def folder(self) -> Path:
        return self.stack.folder

    def run(self, *command: str) -> str:
        """Run a command as this user, and return its output."""
        uid, gid = self.user
        groups = f"--groups={Path('/var/run/docker.sock').stat().st_gid}"
        # The folders of the tests are closed to other users.
        reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        become = ("setpriv", f"--reuid={uid}", f"--regid={gid}", groups, *reads)
        ours = {"PATH": bare_path(), "DOCKER_CONFIG": str(self.config)}
        dropped = {"COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "HOST_UID", "HOST_GID"}
        env = {k: v for k, v in self.stack.environment.items() if k not in dropped}
        result = subprocess.run(
            [*become * (os.geteuid() == 0), *command],
            cwd=self.folder, env=env | ours, capture_output=True, text=True, check=False,
            timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def files_of_others(self) -> list[Path]:
        found = [(path, path.stat()) for path in self.folder.rglob("*")]
        return [path for path, status in found if (status.st_uid, status.st_gid) != self.user]

    def add_column(self, name: str) -> None:
        models = self.folder / "src" / "app" / "features" / "bookmarks" / "models.py"
        text, after = models.read_text(), "    title: Mapped[str]\n"
        models.write_text(text.replace(after, f"{after}    {name}: Mapped[str | None]\n"))

    def assert_written(self, name: str) -> None:
        """Check that a new migration adds a column, and that the user may edit it."""
        (file,) = (self.folder / VERSIONS).glob(f"*_add_{name}.py")
        status = file.stat()
        assert (status.st_uid, status.st_gid) == self.user
        assert status.st_mode & 0o777 == 0o644
        assert f'sa.Column("{name}"' in file.read_text()


def bare_path() -> str:
    """Return a PATH with docker and without uv."""
    path = f"{Path(shutil.which('docker') or '').parent}:/usr/bin:/bin"
    assert shutil.which("uv", path=path) is None
    return path


@pytest.fixture
def person(project: Path, tmp_path: Path) -> Iterator[Person]:
    folder = project_without_venv(project, tmp_path)
    known = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    config = tmp_path / "docker"
    config.mkdir()
    if (known / "cli-plugins").exists():
        (config / "cli-plugins").symlink_to(known / "cli-plugins")
    user = (NOT_ROOT, NOT_ROOT + 1) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    for path in (folder, config, *folder.rglob("*")):
        os.chown(path, *user)
    with Stack(folder, FILES) as stack:
        yield Person(stack, user, config)


def project_without_venv(project: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "service"
    return Path(shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".venv")))


def block(folder: Path, first: str) -> str:
    (found,) = [b for b in shell_blocks((folder / PAGE).read_text()) if b.startswith(first)]
    return found


def lines_of_env(folder: Path, name: str) -> str:
    """Return the block for `.env` that sets a variable."""
    found = re.findall(r"```ini\n(.*?)```", (folder / PAGE).read_text(), re.DOTALL)
    (lines,) = [text for text in found if re.search(rf"^{name}=", text, re.MULTILINE)]
    return str(lines)


def test_docker_user_without_python_does_daily_work(person: Person) -> None:
    """Run the commands of the page, as a user that the image does not have."""
    folder = person.folder
    person.stack.compose("build", "--quiet", "app")
    person.run("sh", "-ec", block(folder, "echo"))
    person.add_column("notes")
    person.run("sh", "-ec", block(folder, f"{DEVELOPMENT} run --rm app"))
    person.assert_written("notes")
    with (folder / ".env").open("a") as env:
        env.write(lines_of_env(folder, "COMPOSE_FILE"))
    person.add_column("source")
    printed = {}
    for _, commands in in_container(folder):
        for command in commands:
            arguments = shlex.split(command.replace("add notes", "add source"))
            printed[command] = person.run("docker", "compose", "run", "--rm", "app", *arguments)
    person.assert_written("source")
    assert re.search(r"^[1-9]\d* rows added$", printed["app seed"], re.MULTILINE)
    components = ("settings", "database", "migrations", "redis")
    assert all(re.search(rf"^{name} +ok", printed["app check"], re.M) for name in components)
    assert "add_source" in person.run(
        "docker", "compose", "run", "--rm", "app", "alembic", "current", "-v"
    )
    person.run("sh", "-ec", block(folder, f"{DEVELOPMENT} run --rm uv"))
    assert '"humanize' in (folder / "pyproject.toml").read_text()
    person.run("docker", "compose", "run", "--rm", "app", "python", "-c", "import humanize")
    assert person.files_of_others() == []


@pytest.mark.thorough  # test_docker_user_without_python_does_daily_work runs the same commands
def test_make_targets_in_a_container_work_without_python(person: Person) -> None:
    (person.folder / "uv.lock").unlink()
    person.run("make", "lock", "in=container")
    person.stack.compose("build", "--quiet", "app")
    person.add_column("notes")
    printed = ""
    for made, _ in in_container(person.folder):
        for target in made:
            printed += person.run("sh", "-ec", target)
    person.assert_written("notes")
    assert re.search(r"^migrations +ok", printed, re.MULTILINE)
    assert re.search(r"^Success: no issues found", printed, re.MULTILINE)
    assert re.search(r"^seed +add example data$", person.run("make", "help"), re.MULTILINE)
    assert person.files_of_others() == []


def test_container_without_variables_runs_as_the_first_user(project: Path) -> None:
    with Stack(project, FILES) as stack:
        config = json.loads(stack.compose("config", "--format", "json"))
        assert config["services"]["app"]["user"] == "1000:1000"
        stack.compose("build", "--quiet", "app")
        assert stack.compose("run", "--rm", "--no-deps", "app", "id", "-u") == "1000"
        production = json.loads(stack.compose("-f", "compose.yaml", "config", "--format", "json"))
        app = production["services"]["app"]
        assert (app["read_only"], app["cap_drop"], app.get("volumes")) == (True, ["ALL"], None)
        for name in ("read_only", "cap_drop", "security_opt", "tmpfs"):
            assert config["services"]["app"][name] == app[name], name


def test_container_of_another_user_cannot_write_into_the_project(
    project: Path, tmp_path: Path
) -> None:
    folder = project_without_venv(project, tmp_path)
    variables = {"HOST_UID": str(NOT_ROOT + 2), "HOST_GID": str(NOT_ROOT + 2)}
    with Stack(folder, FILES, variables) as stack:
        stack.compose("build", "--quiet", "app")
        command = ("run", "--rm", "--no-TTY", "app", "app", "migration", "add notes")
        result = stack.attempt(*command)
        assert result.returncode != 0
        printed = result.stdout + result.stderr
        assert "Permission denied: '/srv/src/app/migrations/versions/" in printed
        assert "set HOST_UID and HOST_GID" in printed
        assert "Traceback" not in printed


@pytest.mark.thorough  # test_docker_user_without_python_does_daily_work uses the default options
@pytest.mark.parametrize(
    "answers",
    [NO_OPTION, EVERY_OPTION, EVERY_OPTION | {"worker": "celery"}],
    ids=["nothing", "everything", "celery"],
)
@pytest.mark.usefixtures("docker_engine")
def test_stack_with_mounted_source_is_healthy_with_any_options(
    bake: Bake, answers: dict[str, object]
) -> None:
    folder = bake(lock=True, **answers).path
    user = {"HOST_UID": str(os.getuid()), "HOST_GID": str(os.getgid())}
    with Stack(folder, FILES, user) as stack:
        stack.compose("build", "--quiet")
        stack.up()
        states = stack.compose("ps", "--format", "{{.Health}}").split()
        assert set(states) == {"healthy"}
        assert len(states) == (5 if answers["worker"] != "none" else 3)
        report = stack.compose("run", "--rm", "--no-TTY", "app", "app", "check")
        assert re.search(r"^migrations +ok", report, re.MULTILINE)
        if answers["auth"] == "accounts":
            account = {"email": "grace@navy.example", "password": "a nanosecond is 30 cm"}
            httpx.post(f"{stack.url}/accounts", json=account).raise_for_status()
            mail = "http://localhost:3000/account#action=verify-email"
            command = ("exec", "-T", "app", "app", "mails")
            wait_until(lambda: mail in stack.attempt(*command).stdout, seconds=120)


SERVERS = ("compose.servers.yaml",)


def published(stack: Stack) -> list[str]:
    label = f"label=com.docker.compose.project={stack.name}"
    names = docker("ps", "--format", "{{.Names}}", "--filter", label).split()
    return sorted(line for name in names for line in docker("port", name).splitlines())


@pytest.mark.usefixtures("docker_engine")
def test_service_on_the_host_uses_the_servers_of_compose(bake: Bake, tmp_path: Path) -> None:
    project = install(bake(lock=True), tmp_path)
    ports = {"POSTGRES_PORT": str(free_port()), "REDIS_PORT": str(free_port())}
    lines = lines_of_env(project, "DATABASE_URL")
    for before, after in (("5432", ports["POSTGRES_PORT"]), ("6379", ports["REDIS_PORT"])):
        assert lines.count(f":{before}/") == 1
        lines = lines.replace(f":{before}/", f":{after}/")
    (project / ".env").write_text(lines)
    with Stack(project, SERVERS, ports) as stack:
        env = environment(tmp_path) | {"COMPOSE_PROJECT_NAME": stack.name, **ports}
        run_block(block(project, "docker compose -f compose.servers.yaml up"), project, env)
        assert published(stack) == [
            f"5432/tcp -> 127.0.0.1:{ports['POSTGRES_PORT']}",
            f"6379/tcp -> 127.0.0.1:{ports['REDIS_PORT']}",
        ]
        with serving(["uv", "run", "app", "dev"], project, env) as url:
            page = {"url": "https://example.com/kept", "title": "Kept"}
            assert ask(f"{url}/bookmarks", method="POST", body=page).status == 201
            report = run_block("uv run app check", project, env)
            assert re.search(r"^redis +ok", report, re.MULTILINE), report
        assert not (project / ".data").exists(), "no embedded server"
        rows = "SELECT count(*) FROM bookmarks WHERE title = 'Kept'"
        assert stack.psql(rows) == "1"
        replace = block(project, "docker compose -f compose.servers.yaml exec")
        assert "rows added" in run_block(replace, project, env)
        assert stack.psql(rows) == "0"
        run_block("docker compose down", project, env)
        assert published(stack) == []
        result = stack.make("servers")
        assert result.returncode == 0, result.stdout
        assert stack.psql("SELECT count(*) > 0 FROM bookmarks") == "t", "the data is kept"


@pytest.mark.parametrize(
    ("answers", "images"),
    [
        (NO_OPTION, {"database": "postgres:18"}),
        (EVERY_OPTION, {"cache": "redis:8", "database": "pgvector/pgvector:pg18"}),
    ],
    ids=["nothing", "everything"],
)
def test_servers_on_localhost_are_those_of_the_options(
    bake: Bake, answers: dict[str, object], images: dict[str, str]
) -> None:
    folder = bake(**answers).path
    config = json.loads(docker("compose", "-f", *SERVERS, "config", "--format=json", cwd=folder))
    assert {name: service["image"] for name, service in config["services"].items()} == images
    assert set(config["volumes"]) == set(images)


def test_clean_volumes_deletes_the_data_after_a_yes(project: Path) -> None:
    with Stack(project) as stack:
        stack.up("database", "cache")
        mine = ("--quiet", "--filter", f"label=com.docker.compose.project={stack.name}")
        before = docker("volume", "ls", *mine)
        result = stack.make("clean-volumes", typed="y\n")
        assert result.returncode != 0
        assert "Nothing was deleted." in result.stdout
        assert docker("volume", "ls", *mine) == before
        assert len(stack.containers("database")) == 1
        result = stack.make("clean-volumes", typed="yes\n")
        assert result.returncode == 0, result.stdout + result.stderr
        question, _, answered = result.stdout.partition('Type "yes"')
        assert {"cache", "database"} <= set(question.splitlines())
        assert "Removed" in answered
        for kind in (("volume", "ls"), ("ps", "--all"), ("network", "ls")):
            assert docker(*kind, *mine) == ""
