"""Run the tests of baked services at many times, in any order, as any user and in any folder.

    make test-anywhere
    make test-anywhere row=3

Every row bakes a service with every option and runs its whole suite once. A table of the results is
printed at the end. Needs Linux, a C compiler, a Python that every user may execute, and root: rows
run as root and as an ordinary user.
"""

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
ROOT = HERE.parent
PLAIN, UNUSUAL = "p", "a path/ü"  # folders
ORDINARY = 65534  # the id of a user and of a group that own nothing
BEFORE_TURN_SECONDS = 60  # of the clock at the start of a row: servers start first
TIMEOUT_SECONDS = 3600  # only bounds a run that hangs
SUMMARY = re.compile(r"^.*\b(?:passed|failed|error)\b.* in [\d.]+s.*$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One run of the suite.

    Attributes:
        turn: the local time that the clock passes during the run.
        zone: the time zone.
        worker: the backend of background jobs.
        processes: the number of workers of pytest-xdist.
        user: root or ordinary.
        folder: of the project, in the temporary folder.
        locale: the value of LC_ALL. With C, Python 3.11 does not start in a folder whose path is
            not ASCII.
        is_at_every_test: each test starts in the last second before a turn of the calendar.
    """

    turn: str
    zone: str
    worker: str
    processes: int
    user: str
    folder: str
    locale: str
    is_at_every_test: bool = False


ROWS = [
    # Every midnight and offset change of three years: ends of months and years, and a leap day.
    Row("2027-10-01 00:00", "Europe/Berlin", "postgres", 1, "root", PLAIN, "C.UTF-8", True),
    Row("2027-01-01 00:00", "Europe/Berlin", "celery", 2, "ordinary", UNUSUAL, "C.UTF-8"),
    Row("2028-02-29 00:00", "UTC", "postgres", 8, "ordinary", PLAIN, "C"),
    Row("2028-03-01 00:00", "America/St_Johns", "celery", 2, "root", UNUSUAL, "C.UTF-8"),
    Row("2027-03-28 03:00", "Europe/Berlin", "postgres", 2, "ordinary", UNUSUAL, "C.UTF-8"),
    Row("2027-10-31 02:00", "Europe/Berlin", "celery", 8, "root", PLAIN, "C.UTF-8"),
    Row("2027-05-01 00:00", "Asia/Kathmandu", "postgres", 2, "root", UNUSUAL, "C.UTF-8"),
    Row("2027-06-16 00:00", "Pacific/Kiritimati", "celery", 1, "ordinary", PLAIN, "C"),
    Row("2027-06-15 13:00", "Pacific/Marquesas", "postgres", 8, "ordinary", UNUSUAL, "C.UTF-8"),
    Row("2027-06-15 12:31", "America/Los_Angeles", "celery", 2, "ordinary", PLAIN, "C"),
]


def answers(row: Row) -> dict[str, str]:
    """Return the answers for every option."""
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    options = [name for name, value in questions.items() if isinstance(value, bool)]
    return dict.fromkeys(options, "true") | {"auth": "accounts", "worker": row.worker}


def find_python() -> str:
    """Return the path of an installed Python that every user may execute.

    Raises:
        SystemExit: there is none.
    """
    command = ["uv", "python", "list", "--only-installed", "--output-format", "json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for version in listed:
        path = Path(version["path"]).resolve()
        supported = version["version_parts"]["minor"] >= 11
        if supported and all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents)):
            return str(path)
    sys.exit("there is no Python 3.11 or newer that every user may execute")


def bake(row: Row, folder: Path) -> Path:
    """Bake the tracked and the new files of this repository into a folder."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    template = folder / "template"
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, template / name)
    project = folder / row.folder
    project.mkdir(parents=True)
    config = folder / "config.yaml"  # without it, cookiecutter writes into the home folder
    config.write_text(f"cookiecutters_dir: {folder}/c\nreplay_dir: {folder}/r\n", encoding="utf-8")
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
    command += ["--output-dir", str(project), str(template)]
    command += [f"{name}={value}" for name, value in answers(row).items()]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return project / "example-service"


def install(project: Path, python: str) -> None:
    """Install the dependencies, and what only these runs need, into the project's environment."""
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env |= {"UV_COMPILE_BYTECODE": "1"}
    for command in (
        ["uv", "sync", "--quiet", "--locked", "--no-python-downloads", "--python", python],
        ["uv", "pip", "install", "--quiet", "pytest-randomly"],
    ):
        subprocess.run(command, cwd=project, env=env, check=True)
    (packages,) = project.glob(".venv/lib/python3*/site-packages")
    shutil.copy(HERE / "last_second.py", packages)


def build_clock(folder: Path) -> Path:
    library = folder / "wall_clock.so"
    source = str(HERE / "wall_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), source], check=True)
    return library


def environment(row: Row, number: int, folder: Path, library: Path) -> dict[str, str]:
    """Return the environment of a run, whose clock passes the turn after some seconds."""
    # The second of two equal local times follows the end of summer time.
    turn = datetime.fromisoformat(row.turn).replace(tzinfo=ZoneInfo(row.zone), fold=1).timestamp()
    clock, now = folder / "clock", time.time()
    clock.write_bytes(struct.pack("=qq", int(turn - now) - BEFORE_TURN_SECONDS, int(now)))
    temporary = folder / "t"  # the paths of sockets in it must be short
    for created in (temporary, folder / "home"):
        created.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(temporary),
        "TZ": row.zone,
        "LC_ALL": row.locale,
        "PYTHONHASHSEED": str(number),
        "WALL_CLOCK": str(clock),
        "LD_PRELOAD": str(library),
    }


def as_user(row: Row, folder: Path) -> list[str]:
    """Give a folder to the user of a row, and return the command that changes to the user."""
    if row.user == "root" or os.geteuid() != 0:
        return []
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
    return ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]


def run(number: int, row: Row, python: str, arguments: list[str]) -> tuple[bool, str]:
    """Run the suite, and return whether it passed and its summary."""
    if row.user == "root" and os.geteuid() != 0:
        return False, "not run: it must run as root"
    with tempfile.TemporaryDirectory(prefix="any-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        project = bake(row, folder)
        install(project, python)
        env = environment(row, number, folder, build_clock(folder))
        command = [".venv/bin/python", "-m", "pytest", "-q", "-n", str(row.processes)]
        command += ["--maxschedchunk", "1", "-p", "randomly", f"--randomly-seed={number}"]
        command += ["-p", "last_second"] * row.is_at_every_test + arguments
        try:
            result = subprocess.run(
                [*as_user(row, folder), *command], cwd=project, env=env, timeout=TIMEOUT_SECONDS,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"no end within {TIMEOUT_SECONDS} s"
    summaries = SUMMARY.findall(result.stdout)
    if result.returncode:
        print(result.stdout)
    return result.returncode == 0, summaries[-1] if summaries else f"exit {result.returncode}"


HEADING = (
    "row  clock passes          time zone            queue     workers  user      folder    LC_ALL"
)


def show(number: int, row: Row, summary: str = "") -> None:
    turn = f"{row.turn}{' ...' * row.is_at_every_test}"
    line = f"{number:>3}  {turn:20}  {row.zone:19}  {row.worker:8}  {row.processes:>7}  "
    line += f"{row.user:8}  {row.folder:8}  {row.locale:7}  {summary}"
    print(line.rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", type=int, choices=range(1, len(ROWS) + 1), help="run one row only")
    parser.add_argument("arguments", nargs="*", help="arguments of pytest, such as tests/features")
    given = parser.parse_args()
    numbers = [given.row] if given.row else range(1, len(ROWS) + 1)
    python = find_python()
    results = {}
    for number in numbers:
        show(number, ROWS[number - 1], "begins")
        results[number] = run(number, ROWS[number - 1], python, given.arguments)
    print(HEADING)
    for number, (passed, summary) in results.items():
        show(number, ROWS[number - 1], f"{'passed' if passed else 'FAILED'}: {summary}")
    sys.exit(not all(passed for passed, _ in results.values()))


if __name__ == "__main__":
    main()
