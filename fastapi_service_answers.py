"""Validation of answers, as Jinja filters that run right after each question.

cookiecutter creates the project's folder before it runs `pre_gen_project`. That hook is too late to
refuse a slug such as `../../x`.

cookiecutter imports this module by its name, so the name must be unique on the import path.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

# Characters that end a string or start an expansion in TOML, YAML, a Makefile, a Dockerfile or a
# shell.
FORBIDDEN = set('"\\`$<>{}|\u2028\u2029\x85')
CONSTRAINTS = Path(__file__).parent / "{{cookiecutter.project_slug}}" / "constraints.txt"
# Device names of Windows, the service's own package, and its dependencies: a project cannot depend
# on itself.
RESERVED = {
    *("app", "test", "tests", "con", "prn", "aux", "nul"),
    *(f"{device}{number}" for device in ("com", "lpt") for number in range(10)),
    *re.findall(r"^([\w-]+)==", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE),
}


# The option that an option needs, and the reason. `worker=celery` is one answer of a question.
NEEDS = {
    "rate_limit": ("redis", "its counters are in Redis"),
    "worker=celery": ("redis", "it sends jobs to workers through Redis"),
}


def check_line(text: str, longest: int) -> str | None:
    """Return the problem of a text that is written into TOML, YAML and Markdown, or None."""
    if not text.strip():
        return "it is empty"
    if text != text.strip():
        return "it begins or ends with a space"
    if len(text) > longest:
        return f"it has {len(text)} characters; the maximum is {longest}"
    for character in text:
        if character in FORBIDDEN or unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"}:
            return f"the character {character!r} would break a configuration file; remove it"
    return None


def check_name(text: str) -> str | None:
    if problem := check_line(text, 60):
        return problem
    if not text[0].isalnum():
        return "it must begin with a letter or a digit"
    if not re.search(r"[A-Za-z]", text):
        return "it has no letter from a to z, and the project's slug needs one"
    for part in (": ", " #", "%"):
        if part in text:
            return f"{part!r} would break a configuration file; remove it"
    return None


def check_slug(text: str) -> str | None:
    """Check a name of a folder, a Python distribution, a container and a host."""
    if len(text) > 50:
        return f"it has {len(text)} characters; the maximum is 50"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        return (
            "it must begin with a letter and have only a to z, 0 to 9 and single hyphens, "
            "as in order-service"
        )
    if text in RESERVED:
        return (
            "the name is reserved for a device, a dependency or the service's own package; "
            f"choose another, as in {text}-service"
        )
    return None


def check_email(text: str) -> str | None:
    if len(text) > 254 or not re.fullmatch(
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text
    ):
        return "it must have the form name@example.com, with letters from a to z"
    return None


RULES: dict[str, Callable[[str], str | None]] = {
    "project_name": check_name,
    "project_slug": check_slug,
    "description": lambda text: check_line(text, 200),
    "author_name": lambda text: check_line(text, 100),
    "author_email": check_email,
}


def accept(answer: object, question: str) -> str:
    """Return the answer, if it is valid.

    Raises:
        FailedHookException: the answer is not valid. cookiecutter prints this kind of error
            without a traceback: one sentence with the question, the answer and the problem.
    """
    text = str(answer)
    # An update renders two versions of the template with one copy of this module. A question
    # without a rule here gets the rule for any text.
    problem = RULES.get(question, lambda text: check_line(text, 200))(text)
    if problem:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise FailedHookException(f"{question}: {shown!r} is not valid: {problem}.")
    return text


def is_chosen(answers: Mapping[str, object], option: str) -> bool:
    question, _, answer = option.partition("=")
    given = answers.get(question)
    return given == answer if answer else given not in {None, False, "none"}


def accept_together(answers: Mapping[str, object]) -> str:
    """Return an empty text, if the chosen options have the options that they need.

    Raises:
        FailedHookException: an option is missing. The message names the choices.
    """
    for option, (needed, reason) in NEEDS.items():
        if is_chosen(answers, option) and not is_chosen(answers, needed):
            raise FailedHookException(
                f"{option} needs {needed}, because {reason}: "
                f"choose {needed} as well, or leave {option} out."
            )
    return ""


class AnswerRules(Extension):
    """Provide the filters `accept` and `accept_together` to cookiecutter.json."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # An update renders two versions of the template in one process, each with its own rules.
        sys.modules.pop(__name__, None)
        environment.filters["accept"] = accept
        environment.filters["accept_together"] = accept_together
