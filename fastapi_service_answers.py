"""The rules for answers, applied while cookiecutter asks, before anything is written.

cookiecutter makes the project's folder before it runs `pre_gen_project`: a hook would come too
late to keep a name like `../../x` from leaving folders behind. A filter runs with each question.

The module's name is its own, because cookiecutter imports it by name, from wherever it is run.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

# One of these in a name would end a string or start an expansion in TOML, YAML, a Makefile, a
# Dockerfile or a shell.
FORBIDDEN = set('"\\`$<>{}|\u2028\u2029\x85')
CONSTRAINTS = Path(__file__).parent / "{{cookiecutter.project_slug}}" / "constraints.txt"
# Names that Windows gives to devices, of the service's own package, and of everything that it
# depends on: a project cannot depend on itself.
RESERVED = {
    *("app", "test", "tests", "con", "prn", "aux", "nul"),
    *(f"{device}{number}" for device in ("com", "lpt") for number in range(10)),
    *re.findall(r"^([\w-]+)==", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE),
}


# What an option cannot do without, and why.
NEEDS = {
    "rate_limit": ("redis", "it counts there"),
    "worker": ("redis", "jobs wait there"),
}


def check_line(text: str, longest: int) -> str | None:
    """What is wrong with a line of text that goes into TOML, YAML and prose; None if nothing is."""
    if not text.strip():
        return "it is empty"
    if text != text.strip():
        return "it begins or ends with a space"
    if len(text) > longest:
        return f"it has {len(text)} characters, and {longest} is the most"
    for character in text:
        if character in FORBIDDEN or unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"}:
            return (
                f"it has the character {character!r}, which would break a configuration file; "
                "leave it out"
            )
    return None


def check_name(text: str) -> str | None:
    if problem := check_line(text, 60):
        return problem
    if not text[0].isalnum():
        return "it begins with something other than a letter or a digit"
    if not re.search(r"[A-Za-z]", text):
        return "it has none of the letters a to z, of which the project's slug is made"
    for part in (": ", " #", "%"):
        if part in text:
            return f"it has {part!r}, which would break a configuration file; leave it out"
    return None


def check_slug(text: str) -> str | None:
    """A slug is a folder, a Python distribution, a container and a host name at once."""
    if len(text) > 50:
        return f"it has {len(text)} characters, and 50 is the most"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        return "it may only have a to z, 0 to 9 and single hyphens between, as in order-service"
    if text in RESERVED:
        return (
            "that name is taken by a device, a dependency or the service's own package; "
            f"choose another, as in {text}-service"
        )
    return None


def check_email(text: str) -> str | None:
    if len(text) > 254 or not re.fullmatch(
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text
    ):
        return "it is not of the form name@example.com, with letters from a to z"
    return None


RULES: dict[str, Callable[[str], str | None]] = {
    "project_name": check_name,
    "project_slug": check_slug,
    "description": lambda text: check_line(text, 200),
    "author_name": lambda text: check_line(text, 100),
    "author_email": check_email,
}


def accept(answer: object, question: str) -> str:
    """The answer, if it will do.

    Raises:
        FailedHookException: one sentence with the question, the answer and what is wrong; the
            kind of error that cookiecutter prints without a traceback.
    """
    text = str(answer)
    # An update renders two versions of the template in one process, with one copy of this module:
    # a question that it does not know yet is held to the rule for any text.
    problem = RULES.get(question, lambda text: check_line(text, 200))(text)
    if problem:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise FailedHookException(f"{question}: {shown!r} will not do: {problem}.")
    return text


def is_chosen(answers: Mapping[str, object], option: str) -> bool:
    return answers.get(option) not in {None, False, "none"}


def accept_together(answers: Mapping[str, object]) -> str:
    """Nothing, if the options that were chosen go together.

    Raises:
        FailedHookException: one sentence that says what to choose.
    """
    for option, (needed, reason) in NEEDS.items():
        if is_chosen(answers, option) and not is_chosen(answers, needed):
            raise FailedHookException(
                f"{option} needs {needed}, because {reason}: "
                f"choose {needed} as well, or leave {option} out."
            )
    return ""


class AnswerRules(Extension):
    """Makes `accept` and `accept_together` filters in cookiecutter.json."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # An update renders two versions of the template in one process: each has its own rules.
        sys.modules.pop(__name__, None)
        environment.filters["accept"] = accept
        environment.filters["accept_together"] = accept_together
