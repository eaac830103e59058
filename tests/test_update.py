"""A project lives on: the template moves, options come and go, and the user's work stays.

The template is a scratch repository with two commits: what is here, and what a year may bring. As
soon as there is a release, what it made is brought to what is here as well.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUESTIONS, ROOT, TEMPLATE, Bake, Baked
from test_docs import run_block, shell_blocks
from test_first_minutes import BARE_PATH

pytestmark = pytest.mark.posix

VERSION = str(QUESTIONS["_version"])
LATER_VERSION = "99.0.0"
RELEASES = subprocess.run(
    ["git", "tag", "--list", "v*", "--sort=-version:refname"],
    cwd=ROOT, check=True, capture_output=True, text=True,
).stdout.split()  # fmt: skip
FIRST_RELEASE = "c300ad0"  # the commit of 1.0.0, which has no tag in a clone without tags
EARLIER_PIN = "idna==3.19"
MIGRATIONS = "src/app/migrations/versions/"


def git(folder: Path, *command: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    return subprocess.run(
        ["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Change something")


def begin(folder: Path) -> None:
    git(folder, "init", "--quiet")
    commit(folder)


def change(path: Path, *replacements: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for before, after in replacements:
        assert text.count(before) == 1, f"{path.name}: {before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8", newline="\n")


def move_on(template: Path) -> None:
    """What a year may bring: other files, an option, other versions, a file less."""
    change(
        template / "cookiecutter.json",
        (f'"_version": "{VERSION}"', f'"_version": "{LATER_VERSION}"'),
        ('  "pgvector": false,', '  "pgvector": false,\n  "greeting": false,'),
    )
    needs = 'NEEDS = {\n    "greeting": ("metrics", "greetings are counted"),\n'
    change(template / "fastapi_service_answers.py", ("NEEDS = {\n", needs))
    owned = 'OWNED = {\n    "greeting": ("src/app/greeting.py",),\n'
    change(template / "hooks" / "post_gen_project.py", ("OWNED = {\n", owned))
    service = template / TEMPLATE
    (service / "src" / "app" / "greeting.py").write_text('GREETING = "Good morning"\n')
    (service / ".vscode" / "extensions.json").unlink()
    pin = re.search(r"^idna==.*", (service / "constraints.txt").read_text(), re.MULTILINE)
    assert pin
    change(service / "constraints.txt", (pin[0], EARLIER_PIN))
    change(service / "pyproject.toml", ('"click>=8.5,<9"', '"click>=8.5.1,<9"'))
    change(service / ".vscode" / "launch.json", ('"Serve"', '"Serve it"'))
    wait = ', gt=0, le=60, description="Longest wait for a free connection, then 503."'
    change(service / "src" / "app" / "db" / "settings.py", (f"3{wait}", f"4{wait}"))
    for name in (".env.example", ".env.production.template"):
        change(service / name, ("_POOL_TIMEOUT_SECONDS=3", "_POOL_TIMEOUT_SECONDS=4"))
    sentence = "free connection, then 503.\nDefault: "
    change(service / "docs" / "settings.md", (f"{sentence}`3`", f"{sentence}`4`"))
    change(service / "README.md", ("You need [uv]", "You will need [uv]"))


def use(project: Path) -> None:
    """What users do: code, a table, a dependency, a setting, a file less, words of their own."""
    tags = project / "src" / "app" / "features" / "tags"
    tags.mkdir()
    (tags / "__init__.py").write_text('"""Tags."""\n')
    (tags / "models.py").write_text(TAGS)
    (project / MIGRATIONS / "0002_add_tags.py").write_text(ADD_TAGS)
    change(
        project / "src" / "app" / "features" / "bookmarks" / "routes.py",
        ("    _set_etag(response, bookmark)\n    return bookmark\n\n\n@router.delete",
         "    _set_etag(response, bookmark)\n"
         '    response.headers["X-Replaced"] = "yes"\n    return bookmark\n\n\n@router.delete'),
    )  # fmt: skip
    change(project / "pyproject.toml", ('    "asyncpg', '    "anyio>=4,<5",\n    "asyncpg'))
    change(project / "src" / "app" / "db" / "settings.py", ("\n        16,\n", "\n        24,\n"))
    for name in (".env.example", ".env.production.template"):
        change(project / name, ("_POOL_SIZE=16", "_POOL_SIZE=24"))
    change(project / "docs" / "settings.md", ("Default: `16`.", "Default: `24`."))
    (project / ".vscode" / "launch.json").unlink()


TAGS = '''"""The table of tags."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import Model


class Tag(Model):
    __tablename__ = "tags"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
'''
ADD_TAGS = '''"""Add tags."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tags",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tags"),
    )


def downgrade() -> None:
    op.drop_table("tags")
'''


@pytest.fixture(scope="module")
def template(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the template, with a tag for each of its moments."""
    folder = tmp_path_factory.mktemp("template")
    git(folder, "init", "--quiet")
    first = next((tag for tag in RELEASES if tag == "v1.0.0"), FIRST_RELEASE)
    archive = subprocess.run(["git", "archive", first], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    commit(folder)
    git(folder, "tag", "first")
    git(folder, "rm", "-r", "--quiet", ".")
    shutil.copytree(repository, folder, dirs_exist_ok=True)
    commit(folder)
    git(folder, "tag", "here")
    move_on(folder)
    commit(folder)
    git(folder, "tag", "later")
    return folder


@pytest.fixture(scope="module")
def env(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `uvx` runs the programs that the template's tools are pinned to."""
    bin_folder = tmp_path_factory.mktemp("bin")
    uvx = bin_folder / "uvx"
    uvx.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m "$@"\n')
    uvx.chmod(0o755)
    return {
        **{k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "DATABASE_URL"}},
        "COOKIECUTTER_CONFIG": str(home),
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTEST_DEBUG_TEMPROOT": str(bin_folder),
        "UV_PROJECT_ENVIRONMENT": str(bin_folder / "environment"),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
    }


Create = Callable[..., Path]
Update = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def create(template: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Create:
    """create("here", redis=False) makes a project as of a moment, without a lock."""
    made: dict[str, Path] = {}

    def make(moment: str, **answers: object) -> Path:
        folder = tmp_path_factory.mktemp("project")
        given = json.dumps(answers)
        if moment + given not in made:
            command = [sys.executable, "-m", "cruft", "create", "--no-input", "--checkout", moment]
            command += ["--output-dir", str(folder), "--extra-context", given, str(template)]
            without_uv = {**env, "PATH": BARE_PATH, "TMPDIR": str(folder)}
            subprocess.run(command, env=without_uv, check=True, capture_output=True)
            made[moment + given] = folder / "example-service"
        shutil.copytree(made[moment + given], folder / "copy")
        return folder / "copy"

    return make


@pytest.fixture(scope="module")
def update(env: dict[str, str]) -> Update:
    """update(project, "here", redis=False), with no uv for the hooks to find."""

    def bring(project: Path, moment: str, **answers: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cruft", "update", "--skip-apply-ask"]
        command += ["--checkout", moment, "--variables-to-update", json.dumps(answers)]
        without_uv = {**env, "PATH": BARE_PATH, "TMPDIR": str(project.parent)}
        return subprocess.run(
            command, cwd=project, env=without_uv, check=False, capture_output=True, text=True
        )

    return bring


def files(project: Path) -> dict[str, bytes]:
    """What is the template's, and what the user has made of it."""
    own = (".git/", ".cruft.json", "uv.lock", MIGRATIONS)
    return {
        path: content
        for path, content in Baked(project, {}).files().items()
        if not path.startswith(own)
    }


def migrations(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / MIGRATIONS).glob("*.py")}


def unmerged(project: Path) -> list[str]:
    rejected = [path.name for path in project.rglob("*.rej")]
    return rejected + git(project, "diff", "--name-only", "--diff-filter=U").split()


def test_project_names_the_version_of_its_template(bake: Bake) -> None:
    project = bake().path
    assert f"made by version {VERSION} of its template" in (project / "README.md").read_text()
    assert f"--checkout v{VERSION}\n" in (project / "docs" / "updating.md").read_text()


def test_version_heading_and_tag_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    numbered = re.findall(r"^## \[?(\d[\w.]*)", changelog, re.MULTILINE)
    assert not numbered or numbered[0] == VERSION
    here = git(ROOT, "tag", "--points-at", "HEAD", "v*").split()
    assert set(here) <= {f"v{VERSION}"}


def test_every_release_is_tested() -> None:
    """A shallow clone has no tags; the template's own pipelines take care to have them."""
    is_shallow = git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"
    assert not is_shallow or "GITHUB_ACTIONS" not in os.environ, "check out with fetch-depth: 0"


@pytest.mark.slow
def test_updated_project_equals_a_new_project_with_the_same_changes(
    create: Create, update: Update
) -> None:
    after = "later"
    project, expected = create("here"), create(after)
    begin(project)
    use(project)
    commit(project)
    use(expected)
    result = update(project, after)
    assert result.returncode == 0, result.stdout + result.stderr
    assert unmerged(project) == []
    assert files(project) == files(expected)
    assert set(migrations(project)) == {"0001_create_bookmarks.py", "0002_add_tags.py"}
    commit(project)
    assert "Nothing to do" in update(project, after).stdout


def new_answers(**old: str) -> dict[str, object]:
    """Return the answers that the CHANGELOG gives in place of those of 1.0.0."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`: (\w+) \| `\"(\w+)\": \"(\w+)\"` \|$", changelog, re.MULTILINE)
    return {new: answer for name, was, new, answer in rows if old.get(name) == was}


def refuse_answers_of_1_0_0(project: Path, update: Update, reason: str, **answers: object) -> None:
    refused = update(project, "here", **answers)
    assert refused.returncode != 0
    assert reason in " ".join((refused.stdout + refused.stderr).split())
    assert git(project, "status", "--short") == ""


OLD_TAGS = TAGS.replace("app.db.model import Model", "app.database import Base").replace(
    "class Tag(Model)", "class TagModel(Base)"
)


@pytest.mark.slow
def test_service_of_1_0_0_is_updated_by_the_steps_of_the_changelog(
    create: Create, update: Update, env: dict[str, str]
) -> None:
    project = create("first", auth=True)
    (project / "src" / "app" / "tags").mkdir()
    (project / "src" / "app" / "tags" / "__init__.py").write_text('"""Tags."""\n')
    (project / "src" / "app" / "tags" / "models.py").write_text(OLD_TAGS)
    follows_accounts = ADD_TAGS.replace("0002", "0003").replace("0001", "0002")
    (project / MIGRATIONS / "0003_add_tags.py").write_text(follows_accounts)
    begin(project)
    refuse_answers_of_1_0_0(project, update, "True provided for choice variable auth")
    answers = new_answers(auth="yes")
    result = update(project, "here", **answers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert unmerged(project) == []
    own = {"src/app/tags/__init__.py", "src/app/tags/models.py"}
    expected = files(create("here", **answers))
    assert {path: text for path, text in files(project).items() if path not in own} == expected
    assert sorted(migrations(project)) == [
        "0001_create_bookmarks.py",
        "0002_create_accounts.py",
        "0003_add_tags.py",
    ]

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    move, write = (
        "git mv src/app/orders src/app/features/orders",
        'app migration "add what 1.1 adds"',
    )
    assert move in changelog
    assert write in changelog
    renamed = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", changelog, re.MULTILINE))
    run_block(move.replace("orders", "tags"), project, env)
    models = project / "src" / "app" / "features" / "tags" / "models.py"
    text = models.read_text(encoding="utf-8").replace("TagModel", "Tag")
    for before, after in renamed.items():
        text = text.replace(before, after)
    assert text == TAGS
    models.write_text(text, encoding="utf-8")
    run_block(f"make lock\nuv run {write}", project, env)
    run_block("uv run app migrate", project, env)
    assert "bookmark_tags" in "".join(map(bytes.decode, migrations(project).values()))
    run_block(
        "uv run pytest tests/infrastructure/db/test_migrate.py tests/features/bookmarks",
        project,
        env,
    )


OLD_JOB = '''"""Work on tags."""

from app.database import Transaction
from app.tasks.definition import job


@job()
async def count_tags(transaction: Transaction) -> int:
    """Return no number."""
    return 0
'''
OLD_SERVICE = '''"""The rules of tags."""

from app.database import Transaction
from app.tags.jobs import count_tags
from app.tasks.queue import QueueOfService


async def create(transaction: Transaction, queue: QueueOfService) -> None:
    queue.enqueue(transaction, count_tags, key="tags")
'''
ENQUEUE = """
import asyncio
from app.command_settings import load_command_settings
from app.db.session import open_database
from app.features.tags.service import create

async def run():
    with load_command_settings() as settings:
        async with open_database(settings) as database, database.session() as session:
            await create(session)

asyncio.run(run())
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["taskiq", "celery"])
def test_worker_of_1_0_0_is_updated_by_the_steps_of_the_changelog(
    create: Create, update: Update, env: dict[str, str], before: str
) -> None:
    project = create("first", worker=before)
    tags = project / "src" / "app" / "tags"
    tags.mkdir()
    (tags / "__init__.py").write_text('"""Tags."""\n')
    (tags / "jobs.py").write_text(OLD_JOB)
    (tags / "service.py").write_text(OLD_SERVICE)
    begin(project)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    answers = new_answers(auth="no", worker=before)
    if before == "taskiq":
        choices = "taskiq provided for choice variable worker, but the choices are ['none', 'po"
        refuse_answers_of_1_0_0(project, update, choices, auth=answers["auth"])
    result = update(project, "here", **answers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert unmerged(project) == []
    worker = answers.get("worker", before)
    own = {f"src/app/tags/{path.name}" for path in tags.iterdir()}
    expected = files(create("here", worker=worker))
    assert {path: text for path, text in files(project).items() if path not in own} == expected

    run_block("git mv src/app/tags src/app/features/tags", project, env)
    renamed = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", changelog, re.MULTILINE))
    for name in ("jobs", "service"):
        module = project / "src" / "app" / "features" / "tags" / f"{name}.py"
        text = module.read_text(encoding="utf-8").replace("app.tags", "app.features.tags")
        text = text.replace(", queue: QueueOfService", "")
        for old, new in renamed.items():
            text = text.replace(old, new)
        module.write_text(text, encoding="utf-8")
    run_block('make lock\nuv run app migration "add what 1.1 adds"', project, env)
    run_block("uv run app migrate", project, env)
    written = "".join(map(bytes.decode, migrations(project).values()))
    assert "DROP TABLE finished_jobs" in written
    (project / "enqueue.py").write_text(ENQUEUE)
    run_block("uv run python enqueue.py", project, env)
    listed = run_block("uv run app jobs list", project, env)
    assert re.search(r"  queued .*  tags\.count_tags\n$", listed)
    run_block("uv run pytest tests/infrastructure/db/test_migrate.py", project, env)


@pytest.mark.slow
def test_only_what_both_have_changed_is_a_conflict(create: Create, update: Update) -> None:
    project = create("here")
    begin(project)
    change(project / "README.md", ("You need [uv]", "You only need [uv]"))
    commit(project)
    assert update(project, "later").returncode == 0
    assert unmerged(project) == ["README.md"]
    readme = (project / "README.md").read_text()
    ours, theirs = readme.split("<<<<<<<")[1].split(">>>>>>>")[0].split("=======")
    assert "You only need [uv]" in ours
    assert "You will need [uv]" in theirs
    assert {**files(project), "README.md": b""} == {**files(create("later")), "README.md": b""}


@pytest.mark.slow
def test_conflicts_are_written_to_reject_files(create: Create, update: Update) -> None:
    """Git has no common version of a file that was changed before the first commit."""
    project = create("here")
    change(project / "README.md", ("You need [uv]", "You only need [uv]"))
    begin(project)
    assert update(project, "later").returncode == 0
    assert unmerged(project) == ["README.md.rej"]
    assert "You will need [uv]" in (project / "README.md.rej").read_text()
    assert f"version {LATER_VERSION} of its template" in (project / "README.md").read_text()


@pytest.mark.slow
def test_changed_file_of_a_removed_option_is_kept(create: Create, update: Update) -> None:
    project = create("here")
    begin(project)
    cache = project / "src" / "app" / "cache" / "read_through.py"
    cache.write_text("# Mine.\n" + cache.read_text())
    commit(project)
    result = update(project, "here", redis=False)
    page = (project / "docs" / "updating.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"cruft prints `(.+?)`", page)
    assert said in result.stderr
    expected = files(create("here", redis=False))
    left = files(project)
    assert left.keys() - expected.keys() == {"src/app/cache/read_through.py"}
    assert left.pop("src/app/cache/read_through.py").startswith(b"# Mine.")
    assert left == expected


SWITCHES = [
    ("here", {"redis": False}, {"redis": True}),
    ("here", {"metrics": False}, {"metrics": True}),
    ("here", {"worker": "celery"}, {"worker": "none"}),
    ("here", {"auth": "oidc"}, {"auth": "none"}),
    ("later", {"greeting": True}, {"greeting": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "there", "back"),
    SWITCHES,
    ids=["redis", "metrics", "worker", "auth", "an option that is new"],
)
def test_option_is_added_and_removed_again(
    create: Create,
    update: Update,
    moment: str,
    there: dict[str, object],
    back: dict[str, object],
) -> None:
    project, expected = create(moment), create(moment, **there)
    begin(project)
    use(project)
    commit(project)
    use(expected)
    before, own = files(project), migrations(project)
    for answers, wanted in ((there, files(expected)), (back, before)):
        assert update(project, moment, **answers).returncode == 0
        assert unmerged(project) == []
        assert files(project) == wanted
        assert migrations(project) == own
        remembered = json.loads((project / ".cruft.json").read_text())["context"]["cookiecutter"]
        assert answers.items() <= remembered.items()
        commit(project)
    assert before != files(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "answers", "reason"),
    [
        ("here", {"rate_limit": True, "redis": False}, "rate_limit needs redis"),
        ("later", {"greeting": True, "metrics": False}, "greeting needs metrics"),
    ],
)
def test_options_that_do_not_go_together_change_nothing(
    create: Create, update: Update, moment: str, answers: dict[str, object], reason: str
) -> None:
    """By the rules of the version that comes, not of the one that was."""
    project = create("here")
    begin(project)
    result = update(project, moment, **answers)
    assert result.returncode != 0
    assert reason in " ".join(result.stderr.split())
    assert git(project, "status", "--short") == ""


# --- what the page tells people to type -----------------------------------------------------------


def block_of(project: Path, beginning: str) -> str:
    blocks = shell_blocks((project / "docs" / "updating.md").read_text(encoding="utf-8"))
    (block,) = [block for block in blocks if block.startswith(beginning)]
    return block


def pins(project: Path) -> set[tuple[str, str]]:
    text = (project / "constraints.txt").read_text()
    return set(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))


def locked(project: Path) -> set[tuple[str, str]]:
    text = (project / "uv.lock").read_text()
    return set(re.findall(r'name = "([\w-]+)"\nversion = "(.+)"\nsource = .*registry', text))


@pytest.fixture(scope="module")
def used(create: Create, env: dict[str, str]) -> Path:
    """A project that has been used, with data in its database."""
    project = create("here")
    begin(project)
    use(project)
    run_block("make lock", project, env)
    commit(project)
    git(project, "tag", "used")
    assert run_block("uv run app seed", project, env).endswith("3 rows added\n")
    return project


@pytest.mark.slow
def test_update_page_brings_new_files_and_the_tested_versions(
    used: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    project = tmp_path / "project"
    git(used, "worktree", "add", "--quiet", str(project), "used")
    before = locked(project)
    assert before == pins(project)
    block = block_of(project, "uvx cruft update --skip-apply-ask\n")
    assert block.endswith("\nmake check\nmake test\n")
    some = (
        "uv run pytest tests/features/bookmarks tests/infrastructure/test_settings_docs.py "
        "tests/infrastructure/test_settings.py"
    )
    run_block(block.replace("make test", some), project, env)
    assert locked(project) == pins(project)
    name, _, version = EARLIER_PIN.partition("==")
    assert locked(project) - before == {(name, version)}
    # Also where nothing else has changed, which uv by itself would take for no reason.
    (pinned,) = [was for was in before if was[0] == name]
    change(project / "constraints.txt", (EARLIER_PIN, "==".join(pinned)))
    run_block("make lock", project, env)
    assert locked(project) == before
    commit(project)
    run_block(block_of(project, "uvx cruft update --variables-to-update"), project, env)
    assert 'python_version = "3.13"' in (project / "pyproject.toml").read_text()


@pytest.mark.slow
def test_tables_of_an_option_are_made_and_dropped_by_the_projects_own_migrations(
    used: Path, update: Update, env: dict[str, str]
) -> None:
    with_tables = {"worker": "postgres", "pgvector": True, "webhooks": True}
    with_tables |= {"auth": "accounts"}
    assert update(used, "here", **with_tables).returncode == 0
    assert unmerged(used) == []
    run_block("make lock", used, env)
    assert "jobs" in failing(used, env, "models_compared_with_migrations")
    write, *apply = block_of(used, "uv run app migration").splitlines()
    run_block(write, used, env)
    (making,) = (used / MIGRATIONS).glob("0003_*.py")
    page = (used / "docs" / "passages.md").read_text(encoding="utf-8")
    (first,) = re.findall(r"`(op\.execute\(.*?\))`", page)
    change(making, ("def upgrade() -> None:\n", f"def upgrade() -> None:\n    {first}\n"))
    run_block("\n".join(apply), used, env)
    style = "uv run ruff check && uv run ruff format --check"
    tests = (
        "uv run pytest tests/infrastructure/db/test_migrate.py "
        "tests/infrastructure/jobs/test_attempts.py"
    )
    run_block(f"{style}\n{tests}", used, env)
    commit(used)

    page = (used / "docs" / "jobs.md").read_text(encoding="utf-8")
    assert update(used, "here", worker="none").returncode == 0
    (write,) = re.findall(r"`(uv run alembic revision .+?)`", page)
    body = page.partition("## Remove the option")[2].split("```python\n")[1].split("```")[0]
    run_block(write, used, env)
    (dropping,) = (used / MIGRATIONS).glob("0004_*.py")
    head, upgrade, rest = dropping.read_text(encoding="utf-8").partition("def upgrade() -> None:\n")
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    rest = rest[rest.index("\n\n\ndef downgrade") + 1 :]
    dropping.write_text(head + upgrade + indented + rest, encoding="utf-8")
    run_block("uv run app migrate", used, env)
    run_block('uv run app migration "drop what the option left"', used, env)
    (dropping,) = (used / MIGRATIONS).glob("0005_*.py")
    assert "DROP TABLE jobs" in dropping.read_text()
    run_block(
        "uv run ruff check\nuv run pytest tests/infrastructure/db/test_migrate.py",
        used,
        env,
    )
    rows = run_block("uv run app migrate\nuv run app seed", used, env)
    assert rows.endswith("0 rows added\n"), "they are all there"
    assert len(migrations(used)) == 5


def failing(project: Path, env: dict[str, str], test: str) -> str:
    file = "tests/infrastructure/db/test_migrate.py"
    result = subprocess.run(
        ["uv", "run", "--quiet", "pytest", "-vv", file, "-k", test],
        cwd=project, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_project_without_cruft_is_linked_by_the_docs_page(
    bake: Bake, template: Path, create: Create, update: Update, env: dict[str, str], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(bake(metrics=False).path, project)
    begin(project)
    link, add, remember = block_of(project, "uvx cruft link").splitlines()
    link = link.replace("https://github.com/org/template", str(template))
    link = link.replace(f"v{VERSION}", "here")
    identity = ("GIT_AUTHOR", "GIT_COMMITTER")
    env = (
        env | {f"{who}_NAME": "A" for who in identity} | {f"{who}_EMAIL": "a@a" for who in identity}
    )
    questions = [name for name in QUESTIONS if not name.startswith("_")]
    answers = "".join("n\n" if name == "metrics" else "\n" for name in [*questions, "commit"])
    run_block(f"printf '%s' '{answers}' | {link}\n{add}\n{remember}", project, env)
    assert git(project, "status", "--short") == ""
    assert update(project, "later").returncode == 0
    assert unmerged(project) == []
    assert files(project) == files(create("later", metrics=False))
