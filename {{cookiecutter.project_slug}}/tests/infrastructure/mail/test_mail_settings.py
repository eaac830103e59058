import pytest
from pydantic import ValidationError

from app.mail.settings import MailSettings

PRODUCTION = {
    "environment": "production",
    "smtp_host": "smtp.example.com",
    "mail_from": "Example Service <no-reply@example.com>",
    "mail_link_url": "https://app.example.com/account",
}


def test_complete_settings_are_sound() -> None:
    assert MailSettings.model_validate(PRODUCTION).insecure_values() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"smtp_host": None}, "SMTP_HOST is missing"),
        ({"smtp_tls": "none"}, "SMTP_TLS is none"),
        ({"mail_from": "no-reply@localhost"}, "MAIL_FROM is missing"),
        ({"mail_link_url": "http://app.example.com"}, "MAIL_LINK_URL is no https:// URL"),
    ],
)
def test_insecure_value_is_named(changes: dict[str, object], expected: str) -> None:
    (found,) = MailSettings.model_validate(PRODUCTION | changes).insecure_values()
    assert expected in found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "Example Service"),
        ("mail_from", "no-reply@"),
        ("mail_from", "a@b.example\nBcc: c@d.example"),
        ("mail_link_url", "app.example.com"),
        ("mail_link_url", "https://app.example.com/#account"),
        ("smtp_tls", "ssl"),
    ],
)
def test_malformed_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        MailSettings.model_validate(PRODUCTION | {name: value})
