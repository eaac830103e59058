"""Mails are rendered in the language of the request, and escape the input of users."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.features
from app.mail.definition import Message, find_mails
from app.mail.settings import MailSettings
from app.mail.templates import Templates, preferred_languages
from processes import RESERVED

MODULE = """
from app.mail.definition import Message, mail


@mail
async def welcome(_session: object, *, name: str) -> Message:
    return Message("grace@navy.example", {"name": name, "token": "a&b"})
"""
FILES = {
    "en/welcome.txt": 'Hello\n\nHello {{ name }}\n{{ link("welcome", token) }}\n',
    "en/welcome.html": '<p>Hello {{ name }}</p><a href="{{ link("welcome", token) }}">Go</a>\n',
    "de/welcome.txt": 'Grüß Gott\n\nGrüß Gott {{ name }}\n{{ link("welcome", token) }}\n',
}


@pytest.fixture(autouse=True)
def feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add a feature with a mail in two languages."""
    package = tmp_path / RESERVED
    for name, content in {**FILES, "__init__.py": "", "mails.py": MODULE}.items():
        path = package / name if name.endswith(".py") else package / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.setattr(app.features, "__path__", [*app.features.__path__, str(tmp_path)])
    yield
    for name in [name for name in sys.modules if f".{RESERVED}" in name]:
        del sys.modules[name]
    vars(app.features).pop(RESERVED, None)


def render(languages: str | None, name: str = "Grace") -> tuple[str, str, str]:
    """Return the subject, the text and the HTML."""
    assert f"{RESERVED}.welcome" in find_mails()
    settings = MailSettings(mail_link_url="https://app.example.com/account")
    message = Message("grace@navy.example", {"name": name, "token": "a&b"})
    mail = Templates(settings).render(f"{RESERVED}.welcome", "1", languages, message)
    bodies = [mail.get_body([kind]) for kind in ("plain", "html")]
    plain, html = [body.get_content() if body else "" for body in bodies]
    return mail["Subject"], plain, html


def test_subject_and_text_are_translated_and_html_falls_back_to_english() -> None:
    subject, plain, html = render("de-AT,de;q=0.9,en;q=0.8")
    assert subject == "Grüß Gott"
    assert plain.startswith("Grüß Gott Grace")
    assert html.startswith("<p>Hello Grace</p>")


@pytest.mark.parametrize("languages", [None, "", "fr", "*", "../../../etc", "en;q=x,de;q=y"])
def test_mail_without_a_translation_is_english(languages: str | None) -> None:
    assert render(languages)[0] == "Hello"


def test_link_has_the_token_in_its_fragment_and_values_are_escaped() -> None:
    _, plain, html = render(None, name="<b>Grace</b>")
    assert "https://app.example.com/account#action=welcome&token=a%26b" in plain
    assert "#action=welcome&amp;token=a%26b" in html
    assert "&lt;b&gt;Grace" in html
    assert "Hello <b>Grace</b>" in plain


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", ["de", "en"]),
        ("en;q=0.1, fr", ["fr", "en"]),
        ("", []),
        (";q=1,de;q=", ["de"]),
    ],
)
def test_preferred_language_comes_first(header: str, expected: list[str]) -> None:
    assert preferred_languages(header) == expected


def test_number_of_languages_is_limited() -> None:
    tags = [f"{first}{second}" for first in "abcdef" for second in "abcdef"]
    assert preferred_languages(",".join(tags)) == tags[:10]
