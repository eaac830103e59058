"""Validation of answers: an invalid one is refused in one sentence, before files are written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUESTIONS, default_answers
from test_bake import OPTIONS

import fastapi_service_answers as answers

RLO = "\u202e"  # right-to-left override
LONG = "x" * 300
BAD = {
    "project_slug": [
        *("", " ", ".", "..", "../evil", "a/b/c", "/evil", "a\\b", "C:evil", "~", "$HOME"),
        *("Upper", "snake_case", "9lives", "-dash", "dash-", "two--dashes", "a b", "a.b", "a'b"),
        *('a"b', "a\nb", "a\tb", "a\0b", "naïve", "оrder", "order\u200b", "ﬁne", LONG, "x" * 51),
        *("con", "nul", "com1", "app", "fastapi", "redis", "sqlalchemy", "tests"),
        *("{{ 7 }}", "{% raw %}", "import os", "class;"),
    ],
    "project_name": [
        *("", " ", " padded", "padded ", LONG, "new\nline", "carriage\rreturn", "tab\tbed"),
        *(
            'qu"ote',
            "back\\slash",
            "tick`",
            "$HOME",
            "<b>",
            "{{ 7 }}",
            "a|b",
            "nul\0",
            "---",
            "日本",
        ),
        *(f"order{RLO}", "zero\u200bwidth", "R&D: no", "space #hash", "100%", "line\u2028end"),
    ],
    "description": ["", " ", LONG, 'a "quoted" word', "a\\b", "new\nline", "${X}", "`rm`", "{# x"],
    "author_name": ["", " ", LONG, 'Ada "the" Lovelace', "new\nline", "a\\b", f"Ada{RLO}"],
    "author_email": [
        *("", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "ada@exa mple.com"),
        *('"ada"@example.com', "ada@example.com\n", "ada@example.com>", "ädа@example.com", LONG),
    ],
}
GOOD = {
    "project_slug": ["order-service", "a", "a1", "x" * 50, "fastapi-orders"],
    "project_name": ["Order Service", "Größe & Co. (2)", "7th Heaven", "O'Brien's"],
    "description": ["Takes orders: stores them, e.g. in 'PostgreSQL' #1.", "Ünïcode — and 日本語."],
    "author_name": ["Conan O'Brien", "José Ñandú", "李小龙", "Ada, Countess of Lovelace"],
    "author_email": ["ada@example.com", "a.b+c@mail.example.co.uk"],
}


@pytest.mark.parametrize(("question", "answer"), [(q, a) for q, bad in BAD.items() for a in bad])
def test_invalid_answer_is_refused_in_one_sentence(question: str, answer: str) -> None:
    with pytest.raises(answers.FailedHookException) as caught:
        answers.accept(answer, question)
    sentence = str(caught.value)
    assert sentence.startswith(f"{question}: ")
    assert "\n" not in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize(("question", "answer"), [(q, a) for q, good in GOOD.items() for a in good])
def test_valid_answer_is_accepted(question: str, answer: str) -> None:
    assert answers.accept(answer, question) == answer


def test_every_text_question_has_and_applies_a_rule() -> None:
    texts = {n for n, v in QUESTIONS.items() if isinstance(v, str) and not n.startswith("_")}
    assert texts == set(answers.RULES)
    for name in texts:
        assert f"accept('{name}')" in str(QUESTIONS[f"__{name}"])


def test_question_without_a_rule_gets_the_rule_for_any_text() -> None:
    assert answers.accept("Payments", "team") == "Payments"
    with pytest.raises(answers.FailedHookException):
        answers.accept("new\nline", "team")


def test_default_answers_are_accepted() -> None:
    for name in answers.RULES:
        answers.accept(default_answers()[name], name)


@pytest.mark.parametrize("name", ["fastapi", "redis", "squawk-cli", "pydantic-core"])
def test_dependency_name_is_reserved(name: str) -> None:
    assert name in answers.RESERVED


@pytest.mark.parametrize("name", ["limits", "app", "con"])
def test_suggested_name_is_accepted(name: str) -> None:
    with pytest.raises(answers.FailedHookException, match=f"choose another, as in {name}-service"):
        answers.accept(name, "project_slug")
    assert answers.accept(f"{name}-service", "project_slug") == f"{name}-service"


@pytest.mark.parametrize("option", answers.NEEDS)
def test_needed_option_is_asked_before_and_checked_right_after(option: str) -> None:
    questions = list(QUESTIONS)
    needed, _ = answers.NEEDS[option]
    question, _, answer = option.partition("=")
    assert not answer or answer in QUESTIONS[question]
    assert questions.index(needed) < questions.index(question)
    assert questions[questions.index(question) + 1] == f"__{question}"
    assert "accept_together" in str(QUESTIONS[f"__{question}"])


@pytest.mark.parametrize(
    ("chosen", "refused"),
    [
        ({"redis": True, "rate_limit": True}, False),
        ({"redis": True, "rate_limit": False}, False),
        ({"redis": False, "rate_limit": False}, False),
        ({"redis": False, "rate_limit": True}, True),
        ({"rate_limit": True}, True),
    ],
)
def test_rate_limit_is_accepted_only_with_redis(chosen: dict[str, object], refused: bool) -> None:
    if not refused:
        assert answers.accept_together(chosen) == ""
        return
    with pytest.raises(answers.FailedHookException) as caught:
        answers.accept_together(chosen)
    assert str(caught.value) == (
        "rate_limit needs redis, because its counters are in Redis: "
        "choose redis as well, or leave rate_limit out."
    )


@pytest.mark.parametrize("without_redis", [{"redis": False}, {}])
def test_celery_without_redis_is_refused(without_redis: dict[str, object]) -> None:
    with pytest.raises(answers.FailedHookException) as caught:
        answers.accept_together({"worker": "celery", **without_redis})
    assert str(caught.value) == (
        "worker=celery needs redis, because it sends jobs to workers through Redis: "
        "choose redis as well, or leave worker=celery out."
    )


@pytest.mark.parametrize("redis", [True, False])
@pytest.mark.parametrize("worker", ["none", "postgres"])
def test_other_worker_with_any_redis_answer_is_accepted(worker: str, redis: bool) -> None:
    assert answers.accept_together({"worker": worker, "redis": redis}) == ""
    assert answers.accept_together({"worker": "celery", "redis": True}) == ""


def run(
    repository: Path, home: Path, folder: Path, *arguments: str, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cookiecutter", "--config-file", str(home), str(repository)]
    if typed is None:
        command.append("--no-input")
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        input=typed,
        env={**os.environ, "PATH": "", "TMPDIR": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("slug", ["../evil", "a/b/c", "{absolute}", "con", "Upper", "{{ 7 }}"])
def test_invalid_slug_writes_nothing(
    repository: Path, home: Path, tmp_path: Path, slug: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    slug = slug.replace("{absolute}", str(tmp_path / "absolute" / "deep"))
    result = run(repository, home, folder, f"project_slug={slug}")
    assert result.returncode == 1
    assert "is not valid" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert list(tmp_path.rglob("*")) == [folder]


@pytest.mark.parametrize("answer", ["yes", "no", "true"])
def test_yes_or_no_to_a_choice_is_refused_with_the_choices(
    repository: Path, home: Path, tmp_path: Path, answer: str
) -> None:
    result = run(repository, home, tmp_path, f"auth={answer}")
    assert result.returncode == 1
    refused = f"{answer} provided for choice variable auth, but the choices are {QUESTIONS['auth']}"
    assert refused in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_typed_invalid_answer_is_refused_before_the_next_question(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    result = run(repository, home, tmp_path, typed='An "order" service\n' + "\n" * 20)
    assert result.returncode == 1
    assert "project_name: 'An \"order\" service' is not valid" in result.stdout + result.stderr
    assert "Project slug" not in result.stdout, "refused before the next question"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", [None, "\n" * 5 + "n\n\ny\n" + "\n" * 9])
def test_option_without_the_needed_one_writes_nothing(
    repository: Path, home: Path, tmp_path: Path, typed: str | None
) -> None:
    given = ["redis=no", "rate_limit=yes"] if typed is None else []
    result = run(repository, home, tmp_path, *given, typed=typed)
    assert result.returncode == 1
    assert "rate_limit needs redis" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "Sentry" not in result.stdout, "refused before the next question"
    assert list(tmp_path.iterdir()) == []


def test_typed_answers_create_the_project(repository: Path, home: Path, tmp_path: Path) -> None:
    words = "Größe & Co.\n\nWhat it's for: this.\nConan O'Brien\nconan@example.com\n"
    given = {"redis": "n", "metrics": "n"}
    options = "".join(f"{given.get(option, '')}\n" for option in OPTIONS)
    typed = f"{words}{options}2\n3\n"
    result = run(repository, home, tmp_path, typed=typed)
    assert result.returncode == 0, result.stdout + result.stderr
    project = tmp_path / "grosse-co"
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert 'description = "What it\'s for: this."' in text
    assert 'license = "BSD-3-Clause"' in text
    assert 'python_version = "3.13"' in text
    assert "Project name" in result.stdout
