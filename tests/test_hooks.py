"""The functions of the hook."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import default_answers
from test_bake import NO_OPTION

ANSWERS = {
    **NO_OPTION,
    "_version": "1.2.3",
    "project_slug": "order-service",
    "project_name": "Order Service",
    "description": "Takes orders from Ada Lovelace.",
    "author_name": "Conan O'Brien",
    "author_email": "conan@example.org",
    "python_version": "3.12",
    "license": "Proprietary",
}


@pytest.mark.parametrize(
    ("text", "with_it", "without_it"),
    [
        ("a\nb  # option: redis\nc\n", "a\nb\nc\n", "a\nc\n"),
        ("a\n# option: redis\nb\n# end option\nc\n", "a\nb\nc\n", "a\nc\n"),
        ("a\n    # option: redis\n    b\n    # end option\n", "a\n    b\n", "a\n"),
        ("<!-- option: redis -->\nb\n<!-- end option -->\n", "b\n", ""),
        ("a\n\n# option: redis\nb\n# end option\n\nc\n", "a\n\nb\n\nc\n", "a\n\nc\n"),
        ("a\n\nb  # option: redis\n\nc\n", "a\n\nb\n\nc\n", "a\n\nc\n"),
        ("a\n\n# option: redis\nb\n# end option\n", "a\n\nb\n", "a\n"),
        ("a\n\n# option: redis\nb\n# end option\nc\n", "a\n\nb\nc\n", "a\n\nc\n"),
        ("a\nonly here  # in the template only\nb\n", "a\nb\n", "a\nb\n"),
        (
            "a  # optional: yes\n# an option: none\n",
            *["a  # optional: yes\n# an option: none\n"] * 2,
        ),
        ("", "", ""),
    ],
)
def test_drop_options_keeps_chosen_lines_and_removes_markers(
    hook: ModuleType, text: str, with_it: str, without_it: str
) -> None:
    assert hook.drop_options(text, {"redis"}) == with_it
    assert hook.drop_options(text, set()) == without_it


def test_line_with_several_options_is_kept_for_any_of_them(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "OWNED", {"redis": (), "auth": ()})
    line = "a  # option: auth, redis"
    assert [hook.drop_options(line, chosen) for chosen in ({"redis"}, {"auth"}, set())] == [
        "a",
        "a",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# option: redis\n", "without an end"),
        ("# end option\n", "line 1: the end of no option"),
        ("# option: redis\n# option: redis\n# end option\n", "line 2: an option inside"),
        ("a  # option: rediss\n", "no such option: rediss"),
    ],
)
def test_wrong_marker_is_an_error(hook: ModuleType, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        hook.drop_options(text, {"redis"})


def test_template_words_are_replaced_in_one_pass(hook: ModuleType) -> None:
    text = 'Example Service (example-service) by Ada Lovelace <ada@example.com>: "MIT" 3.14\n'
    text += "A FastAPI service with PostgreSQL.\n"
    assert hook.fill_in(text, ANSWERS) == (
        'Order Service (order-service) by Conan O\'Brien <conan@example.org>: "MIT" 3.14\n'
        "Takes orders from Ada Lovelace.\n"
    )


def test_version_and_license_are_replaced_only_in_their_fields(hook: ModuleType) -> None:
    text = 'license = "MIT"\npython_version = "3.14"\npi = "3.14"\nx==3.14\n'
    assert hook.fill_in(text, ANSWERS) == (
        'license = "LicenseRef-Proprietary"\npython_version = "3.12"\npi = "3.14"\nx==3.14\n'
    )


@pytest.mark.parametrize(
    "line",
    [
        '          python-version: "{}"',
        "  image: ghcr.io/astral-sh/uv:0.13-python{}-trixie",
        "FROM python:{}-slim AS dependencies",
    ],
)
def test_python_version_of_pipelines_and_image_is_replaced(hook: ModuleType, line: str) -> None:
    assert hook.fill_in(line.format("3.14"), ANSWERS) == line.format("3.12")


@pytest.mark.parametrize("key", ["image", "- name"])
def test_image_without_pgvector_is_plain_postgres(hook: ModuleType, key: str) -> None:
    line = f"    {key}: pgvector/pgvector:pg18"
    assert hook.fill_in(line, ANSWERS | {"pgvector": False}) == f"    {key}: postgres:18"
    assert hook.fill_in(line, ANSWERS | {"pgvector": True}) == line


def migration(number: str, follows: str | None, statement: str = "pass") -> str:
    before = f'"{follows}"' if follows else "None"
    return (
        f'"""What it does."""\n\nrevision = "{number}"\ndown_revision = {before}\n\n\n'
        f"def upgrade() -> None:\n    {statement}\n"
    )


def test_migrations_after_a_gap_are_renumbered(hook: ModuleType) -> None:
    left = {
        "0004_create_passages.py": migration("0004", "0003"),
        "0001_create_bookmarks.py": migration("0001", None),
        "0003_create_webhooks.py": migration("0003", "0002", 'revision = "0002"'),
    }
    assert list(hook.renumber(left).items()) == [
        ("0001_create_bookmarks.py", migration("0001", None)),
        ("0002_create_webhooks.py", migration("0002", "0001", 'revision = "0002"')),
        ("0003_create_passages.py", migration("0003", "0002")),
    ]


def test_migrations_without_a_gap_are_unchanged(hook: ModuleType) -> None:
    whole = {"0001_a.py": migration("0001", None), "0002_b.py": migration("0002", "0001")}
    assert hook.renumber(whole) == whole
    assert hook.renumber({}) == {}


PYPROJECT = """[project]
name = "example-service"

[[tool.importlinter.contracts]]
layers = [
    "cli : migrations : (worker_commands)",
    "main : (worker)",
    "(jobs) | (rate_limit)",
    "(auth) | (cache) | (metrics)",
    "web",
]
"""


@pytest.mark.parametrize(
    ("paths", "layers"),
    [
        (
            ["src/app/cli.py", "src/app/web/health.py", "tests/infrastructure/auth/test_tokens.py"],
            ["cli : migrations", "main", "web"],
        ),
        (
            ["src/app/worker.py", "src/app/cache/settings.py", "src/app/metrics/routes.py"],
            ["cli : migrations", "main : (worker)", "(cache) | (metrics)", "web"],
        ),
        (
            ["src/app/worker_commands.py", "src/app/jobs/enqueue.py", "src/app/rate_limit/a.py"],
            ["cli : migrations : (worker_commands)", "main", "(jobs) | (rate_limit)", "web"],
        ),
    ],
    ids=["no option", "some options", "whole layer"],
)
def test_drop_layers_removes_missing_packages_and_empty_layers(
    hook: ModuleType, paths: list[str], layers: list[str]
) -> None:
    lines = "".join(f'    "{layer}",\n' for layer in layers)
    head = PYPROJECT.partition("layers = [\n")[0]
    assert hook.drop_layers(PYPROJECT, paths) == f"{head}layers = [\n{lines}]\n"


def test_drop_layers_with_every_package_changes_nothing(hook: ModuleType) -> None:
    names = ("worker_commands", "worker", "jobs", "rate_limit", "auth", "cache", "metrics")
    paths = [f"src/app/{name}/__init__.py" for name in names]
    assert hook.drop_layers(PYPROJECT, paths) == PYPROJECT


@pytest.mark.parametrize(
    ("worker", "options"),
    [("none", set()), ("postgres", {"worker", "postgres"}), ("celery", {"worker", "celery"})],
)
def test_choice_adds_its_question_and_its_answer_as_options(
    hook: ModuleType, worker: str, options: set[str]
) -> None:
    answers = ANSWERS | {"worker": worker, "project_name": "celery", "description": "metrics"}
    assert hook.chosen_options(answers) == options
    with_accounts = hook.chosen_options(answers | {"auth": "accounts"})
    assert with_accounts == options | {"auth", "accounts"}


@pytest.fixture
def project(hook: ModuleType, tmp_path: Path) -> Path:
    for name, text in {
        **{
            name if Path(name).suffix else f"{name}/file": ""
            for n in hook.OWNED.values()
            for name in n
        },
        "pyproject.toml": 'name = "example-service"\r\nredis  # option: redis\r\n',
        "scripts/startup.sh": "#!/bin/sh\r\n",
        "LICENSE": "MIT by Ada Lovelace\n",
        "licenses/Proprietary": "All rights: Ada Lovelace\n",
        ".venv/pyvenv.cfg": "",
        ".env": "SECRET=1",
        "src/app/__pycache__/main.pyc": "",
        "uv.lock": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\r\n\xff")
    return tmp_path


@pytest.mark.posix
def test_project_without_options_is_rewritten(hook: ModuleType, project: Path) -> None:
    hook.rewrite_project(project, ANSWERS)
    left = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
    assert left == {"pyproject.toml", "scripts/startup.sh", "LICENSE", "logo.png"}
    assert not (project / "observability").exists(), "empty folders are removed"
    assert (project / "pyproject.toml").read_bytes() == b'name = "order-service"\n'
    assert (project / "scripts/startup.sh").read_bytes() == b"#!/bin/sh\n"
    assert (project / "scripts/startup.sh").stat().st_mode & stat.S_IXUSR
    assert (project / "LICENSE").read_text() == "All rights: Conan O'Brien\n"
    assert (project / "logo.png").read_bytes() == b"\x89PNG\r\n\xff"


@pytest.fixture
def make_old(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """make_old(path) gives a file the age of a file of the user, for `since=1`."""
    # A test cannot set the ctime of a file.
    monkeypatch.setattr(hook, "is_new", lambda path, since: path.stat().st_mtime > since)
    return lambda path: os.utime(path, (0, 0))


def test_folder_with_a_file_of_the_user_is_kept(
    hook: ModuleType, project: Path, make_old: Callable[[Path], None]
) -> None:
    mine = project / "observability" / "grafana" / "mine.json"
    mine.parent.mkdir(exist_ok=True)
    mine.touch()
    make_old(mine)
    hook.rewrite_project(project, ANSWERS, since=1)
    assert [p for p in (project / "observability").rglob("*") if p.is_file()] == [mine]


def test_migrations_of_the_user_are_not_renumbered(
    hook: ModuleType,
    project: Path,
    make_old: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = project / hook.VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    mine = versions / "0007_add_mine.py"
    mine.write_text(migration("0007", "0006"))
    make_old(mine)
    monkeypatch.setitem(
        hook.OWNED, "redis", (*hook.OWNED["redis"], f"{hook.VERSIONS}0002_create_x.py")
    )
    (versions / "__init__.py").touch()
    (versions / "0001_create_bookmarks.py").write_text(migration("0001", None))
    (versions / "0002_create_x.py").write_text(migration("0002", "0001"))
    (versions / "0003_create_y.py").write_text(migration("0003", "0002"))
    hook.rewrite_project(project, ANSWERS, since=1)
    assert {p.name: p.read_text() for p in versions.iterdir()} == {
        "__init__.py": "",
        "0001_create_bookmarks.py": migration("0001", None),
        "0002_create_y.py": migration("0002", "0001"),
        "0007_add_mine.py": migration("0007", "0006"),
    }


def test_wrong_marker_error_names_the_file(hook: ModuleType, project: Path) -> None:
    (project / "broken.py").write_text("# option: redis\n")
    with pytest.raises(SystemExit, match=r"broken.py: an option without an end"):
        hook.rewrite_project(project, ANSWERS)


def fake_uv(folder: Path, script: str) -> str:
    folder.mkdir()
    (folder / "uv").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "uv").chmod(0o755)
    return str(folder)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            r"printf 'error: no fetch\n  cause: no route to host\n\nhint: go away\n' >&2; exit 2",
            "uv failed (no route to host)",
        ),
        ("exit 3", "uv failed (no reason given)"),
        ("exec sleep 5", "uv did not finish (TimeoutExpired)"),
        ("exit 0", None),
    ],
)
def test_failed_lock_returns_the_reason(
    hook: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    problem: str | None,
) -> None:
    monkeypatch.setenv("PATH", fake_uv(tmp_path / "bin", script) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(hook, "LOCK_SECONDS", 0.5)
    assert hook.lock(tmp_path) == problem


@pytest.mark.posix
@pytest.mark.parametrize(
    ("script", "asked"),
    [("exit 0", ["--offline"]), ('test "$last" = fastapi', ["--offline", "fastapi"])],
)
def test_lock_uses_the_index_only_if_the_cache_is_incomplete(
    hook: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    asked: list[str],
) -> None:
    script = f'for last; do :; done; echo "$last" >> asked; {script}'
    monkeypatch.setenv("PATH", fake_uv(tmp_path / "bin", script) + os.pathsep + os.environ["PATH"])
    assert hook.lock(tmp_path) is None
    assert (tmp_path / "asked").read_text().split() == asked


def test_summary_without_uv_names_the_command_for_the_lock(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    message = hook.summary({**default_answers(), **ANSWERS}, hook.lock(tmp_path))
    assert message.splitlines()[3:] == [
        "  uv.lock is missing: uv is not installed (see https://docs.astral.sh/uv/); "
        "the second command creates it",
        "Next:",
        "  cd order-service",
        "  uv add --constraints constraints.txt fastapi",
        "  uv run app dev",
    ]


def test_summary_names_options_and_next_commands(hook: ModuleType) -> None:
    answers = {**default_answers(), **NO_OPTION, "metrics": True, "redis": True}
    lines = hook.summary(answers, None).splitlines()
    assert lines == [
        "",
        "Example Service is in example-service/",
        "  options: metrics, redis; Python 3.14; license MIT",
        "Next:",
        "  cd example-service",
        "  uv run app dev",
    ]
