"""Several users of one machine, each with a project and embedded servers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import attempt, container, docker, wait_until

pytestmark = pytest.mark.containers

USERS = (
    "app",
    "nobody",
    "root",
)  # PostgreSQL refuses root, so the library starts it as another user
NO_ACCOUNT = "4242"
TAG = "example-service:test-second-user"


@pytest.fixture(scope="module")
def machine(project: Path) -> Iterator[str]:
    """Run a container of the image of the tests, with a project folder for each user."""
    docker("build", "--quiet", "--target", "tests", "--tag", TAG, str(project))
    with container(TAG, "sleep", "infinity", options=("--init", "--user", "root")) as name:
        for user in (*USERS, NO_ACCOUNT):
            docker("exec", name, "install", "-d", "-m", "700", "-o", user, f"/projects/{user}")
        yield name


def as_user(user: str) -> list[str]:
    port = 8000 + (*USERS, NO_ACCOUNT).index(user)
    variables = {"ENVIRONMENT": "development", "PORT": str(port), "HOME": f"/projects/{user}"}
    options = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
    return ["exec", "--user", user, "--workdir", f"/projects/{user}", *options]


def test_embedded_servers_of_several_users_run_at_the_same_time(machine: str) -> None:
    for user in USERS:
        docker(*as_user(user), "--detach", machine, "sh", "-c", "app dev --no-reload >log 2>&1")
    for user in USERS:
        healthcheck = [*as_user(user), machine, "python", "-IS", "/srv/scripts/healthcheck.py"]
        try:
            wait_until(lambda command=healthcheck: attempt(*command).returncode == 0, seconds=60)
        except AssertionError as error:
            log = docker("exec", machine, "cat", f"/projects/{user}/log")
            raise AssertionError(f"{user}: {log}") from error
    for user in USERS:
        report = docker(*as_user(user), machine, "app", "check")
        assert re.search(r"^database +ok ", report, re.M), report


def test_user_without_account_gets_one_error_line(machine: str) -> None:
    result = attempt(*as_user(NO_ACCOUNT), machine, "app", "migrate")
    assert result.returncode == 1
    refusal = "Error: PostgreSQL did not start in .data/postgres; its error is logged"
    assert result.stderr.splitlines() == [refusal]
    assert "could not look up effective user ID 4242" in result.stdout
    assert "Traceback" not in result.stdout


def test_runtime_folder_of_another_user_gets_one_error_line(machine: str) -> None:
    for mode, folder in (("1777", "/taken"), ("700", "/taken/pg-10001")):
        docker("exec", machine, "install", "-d", "-m", mode, folder)
    result = attempt(*as_user("app"), "--env", "TMPDIR=/taken", machine, "app", "check")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: PostgreSQL cannot be embedded: /taken/pg-10001 belongs to another "
        "user: set TMPDIR to a folder of your own\n"
    )
