"""Fill in the templates of mails, as text and as HTML."""

from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined, select_autoescape

from app.discovery import find_modules
from app.mail.definition import Message
from app.mail.settings import MailSettings

DEFAULT_LANGUAGE = "en"
MAX_LANGUAGES = 10  # of a request: each one is a look-up of files in the event loop


class Templates:
    """The templates of every feature that sends mails."""

    def __init__(self, settings: MailSettings) -> None:
        packages = [str(module.__package__) for module in find_modules("mails")]
        loaders = {name.rpartition(".")[2]: PackageLoader(name) for name in packages}
        self._environment = Environment(
            loader=PrefixLoader(loaders),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
        )
        self._environment.globals["link"] = self._link
        self._settings = settings

    def render(
        self, name: str, mail_id: str, languages: str | None, message: Message
    ) -> EmailMessage:
        """Return a mail with its headers.

        Args:
            name: of the mail, as in `accounts.reset_password`.
            mail_id: a repeated attempt has the same, so that it can be recognized.
            languages: the header Accept-Language of the request; the best translation is used.
            message: the recipient and the values.
        """
        feature, _, function = name.partition(".")
        tags = [*preferred_languages(languages or ""), DEFAULT_LANGUAGE]

        def render(extension: str) -> str:
            paths = [f"{feature}/{tag}/{function}.{extension}" for tag in tags]
            return self._environment.select_template(paths).render(message.values)

        subject, _, text = render("txt").partition("\n")
        sender = self._settings.mail_from
        mail = EmailMessage()
        mail["From"] = sender
        mail["To"] = message.to
        mail["Subject"] = subject
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{mail_id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic reply
        mail.set_content(text.strip() + "\n")
        mail.add_alternative(render("html"), subtype="html")
        return mail

    def _link(self, action: str, token: str) -> str:
        """Return the link of a mail. Browsers send no fragment, so no server logs the token."""
        values = urlencode({"action": action, "token": token})
        return f"{self._settings.mail_link_url}#{values}"


def preferred_languages(header: str) -> list[str]:
    """Return the first primary languages of a header Accept-Language, the preferred one first."""
    weighted: list[tuple[float, str]] = []
    for item in header.split(","):
        tag, _, weight = item.partition(";q=")
        language = tag.strip().partition("-")[0].lower()
        if language.isascii() and language.isalpha():
            try:
                weighted.append((float(weight or 1), language))
            except ValueError:
                continue
    preferred = sorted(weighted, key=lambda item: -item[0])
    return list(dict.fromkeys(language for _, language in preferred))[:MAX_LANGUAGES]
