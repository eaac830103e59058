"""The hook's functions: text in, text out."""

import os
import stat
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
def test_lines_of_an_option_stay_or_go_and_markers_always_go(
    hook: ModuleType, text: str, with_it: str, without_it: str
) -> None:
    assert hook.drop_options(text, {"redis"}) == with_it
    assert hook.drop_options(text, set()) == without_it


def test_of_several_options_any_keeps_the_line(
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
def test_a_mistake_in_a_marker_is_an_error(hook: ModuleType, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        hook.drop_options(text, {"redis"})


def test_the_templates_words_are_replaced_all_at_once(hook: ModuleType) -> None:
    text = 'Example Service (example-service) by Ada Lovelace <ada@example.com>: "MIT" 3.14\n'
    text += "A FastAPI service with PostgreSQL.\n"
    assert hook.fill_in(text, ANSWERS) == (
        'Order Service (order-service) by Conan O\'Brien <conan@example.org>: "MIT" 3.14\n'
        "Takes orders from Ada Lovelace.\n"
    )


def test_version_and_license_are_replaced_only_where_they_are_meant(hook: ModuleType) -> None:
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
def test_the_pipelines_and_the_image_have_the_version_of_production(
    hook: ModuleType, line: str
) -> None:
    assert hook.fill_in(line.format("3.14"), ANSWERS) == line.format("3.12")


@pytest.mark.parametrize("key", ["image", "- name"])
def test_without_pgvector_the_database_is_plain(hook: ModuleType, key: str) -> None:
    line = f"    {key}: pgvector/pgvector:pg18"
    assert hook.fill_in(line, ANSWERS | {"pgvector": False}) == f"    {key}: postgres:18"
    assert hook.fill_in(line, ANSWERS | {"pgvector": True}) == line


def migration(number: str, follows: str | None, statement: str = "pass") -> str:
    before = f'"{follows}"' if follows else "None"
    return (
        f'"""What it does."""\n\nrevision = "{number}"\ndown_revision = {before}\n\n\n'
        f"def upgrade() -> None:\n    {statement}\n"
    )


def test_migrations_that_are_left_follow_each_other_without_a_gap(hook: ModuleType) -> None:
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


def test_a_chain_that_is_whole_stays_as_it_is(hook: ModuleType) -> None:
    whole = {"0001_a.py": migration("0001", None), "0002_b.py": migration("0002", "0001")}
    assert hook.renumber(whole) == whole
    assert hook.renumber({}) == {}


@pytest.mark.parametrize(
    ("worker", "options"),
    [("none", set()), ("taskiq", {"worker", "taskiq"}), ("celery", {"worker", "celery"})],
)
def test_a_choice_is_an_option_and_so_is_its_question(
    hook: ModuleType, worker: str, options: set[str]
) -> None:
    answers = ANSWERS | {"worker": worker, "project_name": "celery", "description": "metrics"}
    assert hook.chosen_options(answers) == options


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
def test_a_project_is_rewritten(hook: ModuleType, project: Path) -> None:
    hook.rewrite_project(project, ANSWERS)
    left = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
    assert left == {"pyproject.toml", "scripts/startup.sh", "LICENSE", "logo.png"}
    assert not (project / "observability").exists(), "nor is an empty folder left"
    assert (project / "pyproject.toml").read_bytes() == b'name = "order-service"\n'
    assert (project / "scripts/startup.sh").read_bytes() == b"#!/bin/sh\n"
    assert (project / "scripts/startup.sh").stat().st_mode & stat.S_IXUSR
    assert (project / "LICENSE").read_text() == "All rights: Conan O'Brien\n"
    assert (project / "logo.png").read_bytes() == b"\x89PNG\r\n\xff"


def test_a_folder_that_holds_something_else_stays(hook: ModuleType, project: Path) -> None:
    mine = project / "observability" / "grafana" / "mine.json"
    mine.touch()
    hook.rewrite_project(project, ANSWERS)
    assert [p for p in (project / "observability").rglob("*") if p.is_file()] == [mine]


def test_the_migrations_of_a_project_are_renumbered_and_somebodys_own_are_not(
    hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = project / hook.VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    mine = versions / "0007_add_mine.py"
    mine.write_text(migration("0007", "0006"))
    os.utime(mine, (0, 0))
    monkeypatch.setattr(hook, "is_new", lambda path, since: path.stat().st_mtime > since)
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


def test_a_mistake_in_the_template_names_the_file(hook: ModuleType, project: Path) -> None:
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
def test_a_lock_that_fails_says_why(
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
def test_the_index_is_asked_only_for_what_uv_has_not_seen(
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


def test_without_uv_the_summary_says_which_command_finishes_it(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    words = hook.summary({**default_answers(), **ANSWERS}, hook.lock(tmp_path))
    assert words.splitlines()[3:] == [
        "  no uv.lock yet: uv is not installed (see https://docs.astral.sh/uv/); "
        "the second command makes it",
        "Next:",
        "  cd order-service",
        "  uv add --constraints constraints.txt fastapi",
        "  uv run app dev",
    ]


def test_the_summary_says_what_was_made_and_what_comes_next(hook: ModuleType) -> None:
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
