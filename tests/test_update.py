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
from test_baked_service import run, run_tests
from test_docs import run_block, shell_blocks
from test_first_minutes import BARE_PATH

VERSION = str(QUESTIONS["_version"])
LATER_VERSION = "99.0.0"
RELEASES = subprocess.run(
    ["git", "tag", "--list", "v*", "--sort=-version:refname"],
    cwd=ROOT, check=True, capture_output=True, text=True,
).stdout.split()  # fmt: skip
STEPS = [("here", "later"), *(("released", "here") for _ in RELEASES[:1])]
EARLIER_PIN = "idna==3.19"


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
        ('  "auth": false,', '  "auth": false,\n  "greeting": false,'),
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
    change(service / "src" / "app" / "settings.py", (f"3{wait}", f"4{wait}"))
    for name in (".env.example", ".env.production.template"):
        change(service / name, ("_POOL_TIMEOUT_SECONDS=3", "_POOL_TIMEOUT_SECONDS=4"))
    sentence = "free connection, then 503.\nDefault: "
    change(service / "docs" / "settings.md", (f"{sentence}`3`", f"{sentence}`4`"))
    change(service / "README.md", ("You need [uv]", "You will need [uv]"))


def use(project: Path) -> None:
    """What users do: code, a table, a dependency, a setting, a file less, words of their own."""
    (project / "src" / "app" / "tags").mkdir()
    (project / "src" / "app" / "tags" / "__init__.py").touch()
    (project / "src" / "app" / "tags" / "models.py").write_text(TAGS)
    (project / "src" / "app" / "migrations" / "versions" / "0002_add_tags.py").write_text(ADD_TAGS)
    change(
        project / "src" / "app" / "bookmarks" / "routes.py",
        ('    response.headers["ETag"] = _etag(bookmark)\n    return bookmark\n\n\n@router.delete',
         '    response.headers["ETag"] = _etag(bookmark)\n'
         '    response.headers["X-Replaced"] = "yes"\n    return bookmark\n\n\n@router.delete'),
    )  # fmt: skip
    change(project / "pyproject.toml", ('    "asyncpg', '    "anyio>=4,<5",\n    "asyncpg'))
    change(project / "src" / "app" / "settings.py", ("\n        16,\n", "\n        24,\n"))
    for name in (".env.example", ".env.production.template"):
        change(project / name, ("_POOL_SIZE=16", "_POOL_SIZE=24"))
    change(project / "docs" / "settings.md", ("Default: `16`.", "Default: `24`."))
    (project / ".vscode" / "launch.json").unlink()


TAGS = '''"""The table."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class TagModel(Base):
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
    for tag in RELEASES[:1]:
        archive = subprocess.run(["git", "archive", tag], cwd=ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        commit(folder)
        git(folder, "tag", "released")
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
    }


Create = Callable[..., Path]
Update = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def create(template: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Create:
    """create("here", redis=False) makes a project as of a moment, without a lock."""

    def make(moment: str, *, lock: bool = False, **answers: object) -> Path:
        folder = tmp_path_factory.mktemp("made")
        subprocess.run(
            [
                *(sys.executable, "-m", "cruft", "create", "--no-input", "--checkout", moment),
                *("--output-dir", str(folder), "--extra-context", json.dumps(answers)),
                str(template),
            ],
            env=env if lock else {**env, "PATH": BARE_PATH},
            check=True,
            capture_output=True,
        )
        return folder / "example-service"

    return make


@pytest.fixture(scope="module")
def update(env: dict[str, str]) -> Update:
    """update(project, "here", redis=False), with no uv for the hooks to find."""

    def bring(project: Path, moment: str, **answers: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "cruft", "update", "--skip-apply-ask"),
                *("--checkout", moment, "--variables-to-update", json.dumps(answers)),
            ],
            cwd=project,
            env={**env, "PATH": BARE_PATH},
            check=False,
            capture_output=True,
            text=True,
        )

    return bring


def files(project: Path) -> dict[str, bytes]:
    """What is the template's, or was: not the lock, nor what cruft and git remember."""
    others = {"uv.lock", ".cruft.json"}
    return {
        path: content
        for path, content in Baked(project, {}).files().items()
        if path not in others and not path.startswith((".git/", ".data/"))
    }


def unmerged(project: Path) -> list[str]:
    rejected = [path.name for path in project.rglob("*.rej")]
    return rejected + git(project, "diff", "--name-only", "--diff-filter=U").split()


def test_a_project_says_which_version_made_it(bake: Bake) -> None:
    project = bake().path
    assert f"made by version {VERSION} of its template" in (project / "README.md").read_text()
    assert f"--checkout v{VERSION}\n" in (project / "docs" / "updating.md").read_text()


def test_version_heading_and_tag_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    numbered = re.findall(r"^## \[?(\d[\w.]*)", changelog, re.MULTILINE)
    assert not numbered or numbered[0] == VERSION
    here = git(ROOT, "tag", "--points-at", "HEAD", "v*").split()
    assert set(here) <= {f"v{VERSION}"}


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), STEPS)
def test_an_update_makes_of_a_used_project_what_using_the_new_one_would(
    create: Create, update: Update, before: str, after: str
) -> None:
    project, expected = create(before), create(after)
    begin(project)
    use(project)
    commit(project)
    use(expected)
    result = update(project, after)
    assert result.returncode == 0, result.stdout + result.stderr
    assert unmerged(project) == []
    assert files(project) == files(expected)
    state = [json.loads((p / ".cruft.json").read_text()) for p in (project, expected)]
    assert state[0]["commit"] == state[1]["commit"]
    assert "Nothing to do" in update(project, after).stdout or git(project, "status", "--short")


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
def test_what_git_cannot_merge_is_laid_beside(create: Create, update: Update) -> None:
    """The service was changed before it was committed: git has never seen what was made."""
    project = create("here")
    change(project / "README.md", ("You need [uv]", "You only need [uv]"))
    begin(project)
    assert update(project, "later").returncode == 0
    assert unmerged(project) == ["README.md.rej"]
    assert "You will need [uv]" in (project / "README.md.rej").read_text()
    assert f"version {LATER_VERSION} of its template" in (project / "README.md").read_text()


TURNS = [
    ("here", {"redis": False}, {"redis": True}),
    ("here", {"metrics": False}, {"metrics": True}),
    ("here", {"worker": "celery"}, {"worker": "none"}),
    ("later", {"greeting": True}, {"greeting": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "there", "back"), TURNS, ids=["redis", "metrics", "worker", "an option that is new"]
)
def test_an_option_is_turned_on_or_off_and_back(
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
    before = files(project)
    for answers, wanted in ((there, files(expected)), (back, before)):
        assert update(project, moment, **answers).returncode == 0
        assert unmerged(project) == []
        assert files(project) == wanted
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
