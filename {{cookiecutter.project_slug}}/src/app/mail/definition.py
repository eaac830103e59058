"""Mails. A feature declares its mails in a module `mails.py`, and has a template for each.

The templates of the mail `reset_password` are `templates/en/reset_password.txt` and `.html` in the
package of the feature. The first line of the text is the subject. A further folder such as
`templates/de` translates them.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.discovery import find_modules


@dataclass(frozen=True)
class Message:
    """The recipient of a mail, and the values of its templates."""

    to: str
    values: Mapping[str, Any]


Compose = Callable[..., Awaitable[Message | None]]


@dataclass(frozen=True)
class Mail:
    """A kind of mail.

    Args:
        name: its name in the database: the feature and the function.
        compose: called with a session and the arguments by name, at each attempt. Its transaction
            is committed before the mail is sent. It returns None if there is nothing to send.
    """

    name: str
    compose: Compose

    def check_arguments(self, arguments: dict[str, Any]) -> None:
        """Raise TypeError if the mail does not have these arguments."""
        try:
            inspect.signature(self.compose).bind(None, **arguments)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None


def mail(compose: Compose) -> Mail:
    """Declare a mail."""
    feature = compose.__module__.removesuffix(".mails").rpartition(".")[2]
    return Mail(f"{feature}.{compose.__name__}", compose)


def find_mails() -> dict[str, Mail]:
    """Return every mail by name."""
    found = (value for module in find_modules("mails") for value in vars(module).values())
    return {value.name: value for value in found if isinstance(value, Mail)}
