"""Services to measure: bake, install and serve them, with embedded servers."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
NEWEST_FIRST = ("3.14", "3.13", "3.12", "3.11")


@dataclass
class Server:
    """A running service."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time so far; fields 14 and 15 of proc_pid_stat(5)."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def newest_python() -> str:
    """Return the path of the newest installed interpreter that services support."""
    for version in NEWEST_FIRST:
        found = subprocess.run(
            ["uv", "python", "find", "--no-python-downloads", "--system", version],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode == 0:
            return found.stdout.strip()
    sys.exit("Python 3.11 or newer is required")


def copy_of_repository(into: Path) -> Path:
    """Copy the tracked and the new files, without ignored ones."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listing.split("\0")):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, into / name)
    return into


def copy_of_commit(commit: str, into: Path) -> Path:
    """Copy the files of a commit or tag."""
    into.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "--extract"], cwd=into, input=archive, check=True)
    return into


def bake(template: Path, into: Path, name: str, *answers: str, locks: bool = True) -> float:
    """Bake a project into a folder, and return the duration in seconds.

    Args:
        locks: whether the hook finds uv and creates the lock.
    """
    path = os.environ["PATH"]
    if not locks:
        path = os.pathsep.join(p for p in path.split(os.pathsep) if not Path(p, "uv").exists())
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", "--output-dir", into, template,
         f"project_slug={name}", *answers],
        env={**os.environ, "PATH": path}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.monotonic() - started


def install(project: Path, python: str, *, for_production: bool = True) -> Path:
    """Install the locked dependencies, and return the project."""
    command = ["uv", "sync", "--quiet", "--no-python-downloads", "--compile-bytecode"]
    command += ["--python", python, *(["--no-dev"] if for_production else [])]
    subprocess.run(command, cwd=project, check=True)
    return project


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def embedded_servers(project: Path, cores: set[int]) -> Iterator[dict[str, str]]:
    """Run the embedded PostgreSQL and Valkey, and yield their URLs by variable."""
    program = (
        "import sys, json, pathlib\n"
        "from app.dev.services import embedded_services\n"
        "with embedded_services(pathlib.Path('.data')) as urls:\n"
        "    print(json.dumps(urls), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [project / ".venv/bin/python", "-c", program],
        cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())
    finally:
        process.communicate("", timeout=30)


@contextmanager
def serving(
    name: str, command: list[str], folder: Path, env: dict[str, str], cores: set[int]
) -> Iterator[Server]:
    """Run a server on these cores until the block ends."""
    port = free_port()
    variables = {**os.environ, "PORT": str(port), "ENVIRONMENT": "test", "LOG_LEVEL": "info", **env}
    command = [part.replace("{port}", str(port)) for part in command]
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores), start_new_session=True,
    )  # fmt: skip
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/health/live", process)
        yield Server(name, port, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        if process.poll() is not None:
            sys.exit(f"the server ended: {process.args}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit(f"the server does not respond: {process.args}")
