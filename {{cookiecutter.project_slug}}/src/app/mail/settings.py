"""Settings of outgoing mail."""

from email.utils import parseaddr
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from app.settings_base import EnvironmentSettings, production_value

COMPOSE_VARIABLES = ["MAILPIT_PORT"]
DEVELOPMENT_SENDER = "no-reply@localhost"


def _check_sender(sender: str) -> str:
    _, address = parseaddr(sender)
    if not address.isascii() or not all(address.partition("@")) or not sender.isprintable():
        raise ValueError("it must be an address, or a name and <an address>")
    return sender


def check_page_url(url: str) -> str:
    """Return the URL of a page, to which the service adds a fragment.

    Raises:
        ValueError: it is no such URL.
    """
    if not url.startswith(("https://", "http://")) or "#" in url or not url.isprintable():
        raise ValueError("it must be an https:// URL without a fragment")
    return url


class MailSettings(EnvironmentSettings):
    smtp_host: str | None = Field(
        None,
        description="SMTP server. Without it, app dev catches mails and shows them on a page: see "
        "docs/accounts.md.",
        json_schema_extra=production_value("The mail provider shows it.", required=True),
    )
    smtp_port: int = Field(
        587,
        ge=1,
        le=65535,
        description="Port of the SMTP server: 587 for starttls, 465 for tls.",
        json_schema_extra=production_value("The mail provider shows it."),
    )
    smtp_username: str | None = Field(
        None,
        description="User of the SMTP server.",
        json_schema_extra=production_value("The mail provider shows it."),
    )
    smtp_password: SecretStr | None = Field(
        None,
        description="Password of the SMTP server.",
        json_schema_extra=production_value("The mail provider shows it."),
    )
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="Encryption of the connection; production refuses none."
    )
    smtp_timeout_seconds: float = Field(
        10, gt=0, le=60, description="Longest wait for the SMTP server to connect or to answer."
    )
    mail_from: Annotated[str, AfterValidator(_check_sender)] = Field(
        DEVELOPMENT_SENDER,
        description="Sender of mails, as in Example Service <no-reply@example.com>.",
        json_schema_extra=production_value(
            "An address of a domain whose mail provider this is.", required=True
        ),
    )
    mail_link_url: Annotated[str, AfterValidator(check_page_url)] = Field(
        "http://localhost:3000/account",
        description="Page of the frontend that links in mails open. Its fragment has the action "
        "and the token. While app dev catches mails, the default is a page of its own.",
        json_schema_extra=production_value("An https:// URL of the frontend.", required=True),
    )

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        if self.smtp_host is None:
            found.append("SMTP_HOST is missing: set it to the server of a mail provider")
        if self.smtp_tls == "none":
            found.append(
                "SMTP_TLS is none, which sends links unencrypted: set it to starttls or tls"
            )
        if self.mail_from == DEVELOPMENT_SENDER:
            found.append("MAIL_FROM is missing: set it to an address of your domain")
        if not self.mail_link_url.startswith("https://"):
            found.append("MAIL_LINK_URL is no https:// URL: set it to a page of the frontend")
        return found
