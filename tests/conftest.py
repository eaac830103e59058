"""Fixtures for bakes: cookiecutter runs on the tracked files."""

import copy
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import engine
import kubernetes
import kubernetes_cluster
import kubernetes_versions
import pytest
import results_page
from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
TEMPLATE = "{{cookiecutter.project_slug}}"
# A make that a test runs would inherit the options of `make test`, and print its directory.
for name in ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL"):
    os.environ.pop(name, None)
LONGEST = "test_every_combination"  # a minute
QUESTIONS: dict[str, object] = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Baked:
    """A project that cookiecutter created."""

    path: Path
    answers: dict[str, object]

    def files(self) -> dict[str, bytes]:
        """Return the content of the files that a user would commit, by path."""
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and not {".venv", "__pycache__"}.intersection(path.parts)
        }

    def copy_to(self, folder: Path) -> Path:
        """Copy the project without its virtual environment."""
        return Path(shutil.copytree(self.path, folder, ignore=shutil.ignore_patterns(".venv")))


Bake = Callable[..., Baked]


def tracked_files() -> list[str]:
    """Return the tracked and the new files, without ignored ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    names = [name for name in listing.decode().split("\0") if name]
    return [name for name in names if (ROOT / name).exists()]


@pytest.fixture(scope="session", autouse=True)
def folder_of_inner_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the pytest of a baked service another temporary folder than that of this run.

    Each start of pytest closes its folder to other users. Projects are in the folder of this run,
    and PostgreSQL, which root starts as another user, must read its extensions there.
    """
    tmp_path_factory.getbasetemp()  # reads the variable for this run
    with TemporaryDirectory(prefix="inner-", ignore_cleanup_errors=True) as folder:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        yield


@pytest.fixture(scope="session", autouse=True)
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let mypy check only the differences between projects. Each worker has a folder of its own."""
    os.environ["MYPY_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "mypy")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the repository as a fresh clone has it."""
    folder = tmp_path_factory.mktemp("repository")
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a cookiecutter configuration that does not touch the user's own."""
    folder = tmp_path_factory.mktemp("home")
    config = folder / "config.yaml"
    config.write_text(f"cookiecutters_dir: {folder}/c\nreplay_dir: {folder}/r\n", encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def bake(repository: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bake]:
    """bake(redis=False, lock=True) creates a project. The same answers return the same project."""
    made: dict[str, Baked] = {}

    def bake_once(*, lock: bool = False, **answers: object) -> Baked:
        key = json.dumps([lock, answers], sort_keys=True)
        if key not in made:
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
                # cookiecutter leaves a copy of each hook in the temporary folder.
                patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("hooks")))
                if not lock:
                    patch.setenv("PATH", "")
                path = cookiecutter(
                    str(repository),
                    no_input=True,
                    extra_context=answers,
                    output_dir=str(tmp_path_factory.mktemp("bake")),
                    config_file=str(home),
                )
            made[key] = Baked(Path(path), {**default_answers(), **answers})
        return made[key]

    yield bake_once
    for baked in made.values():
        shutil.rmtree(baked.path.parent, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker ends long after the other."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not item.name.startswith(LONGEST), -slow[item.path]))
    if os.name == "nt":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="Windows has no sh, make or signals"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--measurements",
        type=Path,
        metavar="PAGE",
        help="write the measurements into a section of this page, if every test passes",
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if any(kubernetes_cluster.NO_CLUSTER in str(report.longrepr) for report in skipped):
        terminalreporter.section("Kubernetes")
        terminalreporter.line(kubernetes_cluster.WARNING)
    if engine.MEASUREMENTS:
        terminalreporter.section("measurements")
        for line in engine.MEASUREMENTS:
            terminalreporter.line(line)
        page: Path | None = config.getoption("--measurements")
        if page and exitstatus == pytest.ExitCode.OK:
            text = results_page.containers_section(engine.MEASUREMENTS)
            results_page.write_section(page, results_page.CONTAINERS, text)


def default_answers() -> dict[str, object]:
    return {
        name: value[0] if isinstance(value, list) else value
        for name, value in QUESTIONS.items()
        if not name.startswith("_")
    } | {"project_slug": "example-service", "_version": QUESTIONS["_version"]}


@pytest.fixture(scope="session")
def hook() -> ModuleType:
    """Import the hook without rendering it."""
    sys.path.insert(0, str(ROOT / "hooks"))
    import post_gen_project

    return post_gen_project


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[None]:
    """Require a Docker engine, and check that the tests leave nothing in it."""
    if not engine.is_running():
        pytest.fail("no Docker engine: start Docker, or run `make test`")
    before = {kind: engine.listing(kind) for kind in engine.KINDS}
    yield
    images = engine.listing("image") - before["image"]
    if images:
        engine.docker("image", "rm", "--force", *images)
    left = {kind: engine.listing(kind) - before[kind] for kind in engine.KINDS}
    assert not any(left.values()), left


@pytest.fixture(scope="session")
def project(docker_engine: None, bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - requires Docker, and removes the images afterwards
    """Provide the default service with a lock."""
    return bake(lock=True).copy_to(tmp_path_factory.mktemp("containers") / "example-service")


@pytest.fixture(scope="session")
def image(project: Path) -> str:
    """Build the production image and the image of the proxy."""
    tag = "example-service:test"
    engine.docker(
        "build", "--quiet", "--tag", tag, "--build-arg", "VERSION=0.1.0",
        "--build-arg", "COMMIT_SHA=c0ffee", str(project),
    )  # fmt: skip
    engine.docker("compose", "build", "--quiet", "proxy", cwd=project)
    return tag


@pytest.fixture
def stack(project: Path, image: str) -> Iterator[engine.Stack]:
    """Provide a compose stack for one test. It is not started."""
    assert image
    with engine.Stack(project) as stack:
        yield stack


@pytest.fixture(scope="session")
def running_stack(project: Path, image: str) -> Iterator[engine.Stack]:
    """Provide a running compose stack. Tests that share it leave it healthy."""
    assert image
    with engine.Stack(project) as stack:
        stack.up()
        yield stack


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Require a Kubernetes cluster on this machine, which runs the images of its Docker engine."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip(kubernetes_cluster.NO_CLUSTER)
    with pytest.MonkeyPatch.context() as patch:
        # .ci/run installs kubectl there if that of the machine is too old.
        patch.setenv("PATH", str(ROOT / ".tools" / "bin"), prepend=os.pathsep)
        if reason := kubernetes_cluster.why_not_usable():
            pytest.fail(reason)
        if not engine.is_running():
            pytest.fail("no Docker engine: start Docker")
        patch.setenv("no_proxy", "*")  # for requests to addresses of the cluster
        yield


@pytest.fixture(scope="session")
def versions(
    cluster: None,  # noqa: ARG001 - requires the cluster before it builds images
    bake: Bake,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[kubernetes_versions.Versions]:
    """Build images of a service with a cache and a worker, and remove them afterwards."""
    project = bake(lock=True, redis=True, worker="postgres", auth="none", deploy="kubernetes")
    made = kubernetes_versions.build_versions(project.path, tmp_path_factory.mktemp("versions"))
    yield made
    engine.docker("image", "rm", "--force", *made.images())


@pytest.fixture(scope="session")
def deployed(
    versions: kubernetes_versions.Versions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[kubernetes.Namespace]:
    """Provide the first version, rolled out to an empty database."""
    folder = tmp_path_factory.mktemp("cluster")
    with kubernetes.Namespace(versions.manifests, folder, versions.first) as namespace:
        namespace.roll_out_first()
        yield namespace


@pytest.fixture
def service(deployed: kubernetes.Namespace) -> Iterator[kubernetes.Namespace]:
    """Provide the first version with two ready replicas. A test may roll out another version."""
    deployed.wait_for_rollout()
    before = copy.deepcopy(deployed.overlay)
    yield deployed
    if deployed.overlay != before:
        deployed.overlay = before
        deployed.roll_out()
