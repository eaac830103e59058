"""The sender of a request."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """The sender of a request, as its credentials describe it.

    Attributes:
        account_id: the same for every token of the sender.
        subject: the sender's id at the provider, or the account id.
        permissions: scopes, roles, and the permissions that these give.
    """

    account_id: uuid.UUID
    subject: str
    permissions: frozenset[str]
    session_id: uuid.UUID | None = None  # of the log-in; API keys have none  # option: accounts
