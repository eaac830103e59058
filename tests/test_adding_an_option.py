"""docs/adding-an-option.md: every step is done in a copy of the repository.

Each step is a function here, and the page must name each path that the function changes. Then each
step in turn is left out, and a test of the repository must fail.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, TEMPLATE

pytestmark = [pytest.mark.slow, pytest.mark.posix]

PAGE = (ROOT / "docs" / "adding-an-option.md").read_text(encoding="utf-8")
SAID = {
    title.rstrip("."): text
    for title, text in re.findall(r"^\d\. \*\*(.+?)\*\*(.*?)(?=^\d\. |^```)", PAGE, re.M | re.S)
}
PACKAGES = ("python-slugify==9.2.0", "text-unidecode==1.3")
PACKAGE = '"""Greetings."""\n'
ROUTES = '''\
"""The route of greetings."""

from typing import Annotated

from fastapi import APIRouter
from slugify import slugify

from app.greeting.settings import GreetingSettings
from app.web.dependencies import from_state

greeting_router = APIRouter(prefix="/greeting")
SettingsDep = Annotated[GreetingSettings, from_state("settings")]


@greeting_router.get("")
async def read_greeting(settings: SettingsDep) -> dict[str, str]:
    """Return the greeting."""
    return {"greeting": slugify(settings.greeting)}
'''
SETTINGS = '''\
"""The setting of greetings."""

from pydantic import BaseModel, Field


class GreetingSettings(BaseModel):
    greeting: str = Field("hello", min_length=1, description="The greeting of clients.")
'''
TESTS = """\
from app.main import create_app
from conftest import running, settings_for


async def test_the_greeting_comes_from_the_settings(database_url: str) -> None:
    async with running(create_app(settings_for(database_url, greeting="Good Day"))) as client:
        assert (await client.get("/greeting")).json() == {"greeting": "good-day"}
"""


@dataclass
class Copy:
    """A repository of the template, and its template folder."""

    root: Path

    @property
    def service(self) -> Path:
        return self.root / TEMPLATE

    def before(self, path: Path, line: str, new: str) -> None:
        """Put text before the only line that begins so."""
        text = path.read_text(encoding="utf-8")
        (found,) = re.finditer(rf"^{re.escape(line)}", text, re.MULTILINE)
        path.write_text(f"{text[: found.start()]}{new}{text[found.start() :]}", encoding="utf-8")

    def run(self, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        dropped = {"VIRTUAL_ENV", "PYTEST_XDIST_WORKER", "DATABASE_URL", "REDIS_URL"}
        env = {k: v for k, v in os.environ.items() if k not in dropped}
        # As in test_baked_service.run: PostgreSQL must be able to read its extensions.
        env["PYTEST_DEBUG_TEMPROOT"] = str(self.root.parent)
        return subprocess.run(
            command, cwd=folder or self.root, env=env, capture_output=True, text=True, check=False
        )

    def test(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def fence(text: str, comment: str = "# {}") -> str:
    begin, end = comment.format("option: greeting"), comment.format("end option")
    return f"{begin}\n{text}{end}\n"


MARKDOWN = "<!-- {} -->"


def write_the_service(copy: Copy) -> None:
    app = copy.service / "src" / "app"
    (app / "greeting").mkdir()
    (app / "greeting" / "__init__.py").write_text(PACKAGE)
    (app / "greeting" / "routes.py").write_text(ROUTES)
    (app / "greeting" / "settings.py").write_text(SETTINGS)
    (copy.service / "tests" / "infrastructure" / "greeting").mkdir()
    (copy.service / "tests" / "infrastructure" / "greeting" / "test_greeting.py").write_text(TESTS)
    marker = "  # option: greeting\n"
    copy.before(app / "main.py", "from app.interpreter import",
                f"from app.greeting.routes import greeting_router{marker}")  # fmt: skip
    copy.before(app / "main.py", "    app.include_router(bookmarks.router)",
                f"    app.include_router(greeting_router){marker}")  # fmt: skip
    copy.before(app / "settings.py", "from app.jobs.settings",
                f"from app.greeting.settings import GreetingSettings{marker}")  # fmt: skip
    copy.before(app / "settings.py", "    RateLimitSettings,", f"    GreetingSettings,{marker}")
    project = copy.service / "pyproject.toml"
    inside = "    # {}"
    copy.before(project, '    "sqlalchemy', fence('    "python-slugify>=9,<10",\n', inside))
    text = project.read_text(encoding="utf-8")
    assert text.count("(cache) | (metrics)") == 1
    text = text.replace("(cache) | (metrics)", "(cache) | (greeting) | (metrics)")
    project.write_text(text, encoding="utf-8")


def pin_the_versions(copy: Copy) -> None:
    path = copy.service / "constraints.txt"
    lines = path.read_text().splitlines() + [f"{line}  # option: greeting" for line in PACKAGES]
    path.write_text("\n".join([*sorted(lines, key=lambda line: (line[0] != "#", line)), ""]))


def ask_the_question(copy: Copy) -> None:
    questions = copy.root / "cookiecutter.json"
    copy.before(questions, '  "rate_limit"', '  "greeting": false,\n')
    copy.before(questions, '    "rate_limit"', '    "greeting": "Greet people?",\n')


def tell_the_hook(copy: Copy) -> None:
    owned = (
        "docs/greeting.md",
        "src/app/greeting",
        "tests/infrastructure/greeting",
    )
    lines = "".join(f'        "{path}",\n' for path in owned)
    copy.before(copy.root / "hooks" / "post_gen_project.py", '    "rate_limit": (',
                f'    "greeting": (\n{lines}    ),\n')  # fmt: skip


def name_the_residue(copy: Copy) -> None:
    path = copy.root / "tests" / "test_bake.py"
    word = 're.compile(r"greet|slugify", re.IGNORECASE)'
    copy.before(path, '    "rate_limit": re', f'    "greeting": {word},\n')
    text = path.read_text()
    (counts,) = re.findall(r"^COUNTS = \((\d+), (\d+)\)", text, re.MULTILINE)
    for count in counts:
        text = text.replace(count, str(2 * int(count)))
    path.write_text(text)


def document_the_variable(copy: Copy) -> None:
    """What is printed for it is put before the next one, as it is printed."""
    for options, name, comment, following in (
        ((), ".env.example", "# {}", "# option: rate_limit"),
        (("--production",), ".env.production.template", "# {}", "# option: rate_limit"),
        (("--page",), "docs/settings.md", MARKDOWN, "<!-- option: rate_limit -->"),
    ):
        printed = copy.run("uv", "run", "--quiet", "app", "env", *options, folder=copy.service)
        assert printed.returncode == 0, printed.stderr
        parts = re.split(r"\n\n(?=##)" if options == ("--page",) else r"\n\n", printed.stdout)
        (part,) = [part for part in parts if "GREETING" in part]
        copy.before(copy.service / name, following, fence(f"{part.strip()}\n", comment) + "\n")


def write_the_docs(copy: Copy) -> None:
    (copy.service / "docs" / "greeting.md").write_text("# Greeting\n\n`GET /greeting` greets.\n")
    link = "- [Greeting](docs/greeting.md): how people are greeted\n"
    copy.before(copy.service / "README.md", "- [Settings](", fence(link, MARKDOWN))


def tell_people(copy: Copy) -> None:
    copy.before(copy.root / "README.md", "| `rate_limit`", "| `greeting` | no, yes: greets |\n")
    changelog, heading = copy.root / "CHANGELOG.md", "## Unreleased\n"
    text = changelog.read_text(encoding="utf-8")
    line = "- `greeting`: people are greeted.\n"
    changelog.write_text(text.replace(heading, f"{heading}\n{line}", 1), encoding="utf-8")


STEPS: dict[str, Callable[[Copy], None]] = {
    "The service, in place": write_the_service,
    "Versions": pin_the_versions,
    "The question": ask_the_question,
    "The hook": tell_the_hook,
    "Forbidden words": name_the_residue,
    "Variables": document_the_variable,
    "The docs": write_the_docs,
    "The table": tell_people,
}


def content(folder: Path) -> dict[Path, bytes]:
    ignored = {".venv", "__pycache__", "uv.lock", ".git"}
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not ignored.intersection(path.parts)
    }


def new_copy(repository: Path, folder: Path) -> Copy:
    shutil.copytree(repository, folder)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # the tests ask it for files
    return Copy(folder)


@pytest.fixture(scope="module")
def added(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The repository with the option in it, and its template folder installed."""
    assert list(STEPS) == list(SAID), "the steps on the page and the steps here differ"
    copy = new_copy(repository, tmp_path_factory.mktemp("added") / "repository")
    for title, step in STEPS.items():
        if step is document_the_variable:
            install(copy)
        before = content(copy.root)
        step(copy)
        for path, text in content(copy.root).items():
            if before.get(path) != text:
                named = SAID[title].replace("<option>", "greeting")
                assert re.search(rf"`[\w/]*{re.escape(path.name)}`", named), f"{title}: {path.name}"
    return copy


def install(copy: Copy) -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lock = "uv add --no-sync --constraints constraints.txt fastapi"
    assert lock in contributing
    for command in (lock, f"uv sync --quiet --no-python-downloads --python {sys.executable}"):
        result = copy.run(*command.split(), folder=copy.service)
        assert result.returncode == 0, result.stderr


FEW = """
import test_bake
from test_bake import EVERY_OPTION, NO_OPTION, WORDS


def test_few(hook, repository, tmp_path, monkeypatch, capsys):
    rows = [row | {"greeting": g} | WORDS[0] for row in (NO_OPTION, EVERY_OPTION) for g in (0, 1)]
    monkeypatch.setattr(test_bake, "COMBINATIONS", rows)
    monkeypatch.setattr(test_bake, "PARTS", 1)
    test_bake.test_every_combination_has_no_residue_and_passes_ruff(
        0, hook, repository, tmp_path, monkeypatch, capsys
    )
"""
# Of all tests those that look at options, on few combinations of them.
FEW_ROWS = "tests/test_few.py"
COUNTED = "tests/test_bake.py::test_combinations_cover_every_answer_and_option"
OWNED = "tests/test_bake.py::test_every_file_of_an_option_exists"
LINKED = "tests/test_docs.py::test_every_page_has_a_link"
IN_THE_TABLE = "tests/test_root_docs.py::test_every_question_is_in_the_table"
CHECKS = (
    FEW_ROWS, COUNTED, OWNED, LINKED, IN_THE_TABLE,
    "tests/test_bake.py::test_bake_with_every_option_equals_the_template",
    "tests/test_docs.py::test_every_link_has_a_target",
    "tests/test_docs.py::test_every_variable_in_the_docs_exists",
)  # fmt: skip
VERSIONS = "tests/test_baked_service.py::test_locked_versions_are_those_of_the_constraints"


def test_option_added_by_the_docs_page_passes_all_checks(added: Copy) -> None:
    """Style, hook, bakes with and without it, and its place among the others."""
    (added.root / FEW_ROWS).write_text(FEW)
    result = added.test(*CHECKS, f"{VERSIONS}[greeting=True]", f"{VERSIONS}[nothing]")
    assert result.returncode == 0, result.stdout
    (added.root / FEW_ROWS).unlink()
    ruff = str(Path(sys.executable).with_name("ruff"))
    for folder in (added.root, added.service):
        for command in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
            result = added.run(ruff, *command, folder=folder)
            assert result.returncode == 0, result.stdout


def test_the_service_with_it_passes(added: Copy) -> None:
    """Its own tests, the comparison of settings and pages, and the import contract."""
    for command in (
        ("pytest", "-q", "tests/infrastructure/greeting"),
        ("pytest", "-q", "tests/infrastructure/test_settings_docs.py"),
        ("lint-imports", "--no-cache"),
    ):
        result = added.run("uv", "run", *command, folder=added.service)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize(
    ("forgotten", "check", "named"),
    [
        ("Versions", f"{VERSIONS}[greeting=True]", "python-slugify"),
        ("The question", OWNED, "greeting"),
        ("The hook", FEW_ROWS, "no such option: greeting"),
        ("Forbidden words", COUNTED, "greeting"),
        ("The docs", LINKED, "docs/greeting.md"),
        ("The table", IN_THE_TABLE, "greeting"),
    ],
    ids=lambda value: value if value in STEPS else "",
)
def test_omitted_step_is_reported(
    repository: Path, tmp_path: Path, forgotten: str, check: str, named: str
) -> None:
    copy = new_copy(repository, tmp_path / "repository")
    (copy.root / FEW_ROWS).write_text(FEW)
    for title, step in STEPS.items():
        if step is document_the_variable:
            continue  # it needs an installed service
        if title == "The docs" == forgotten:
            (copy.service / "docs" / "greeting.md").write_text("# Greeting\n")  # no link
        elif title != forgotten:
            step(copy)
    result = copy.test(check)
    assert result.returncode == 1, result.stdout
    reasons = [line for line in result.stdout.splitlines() if line.startswith("E ")]
    assert any(named in line for line in reasons), result.stdout
