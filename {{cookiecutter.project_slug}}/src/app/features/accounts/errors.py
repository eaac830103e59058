"""The errors of accounts."""

from app.errors import Conflict, NotAuthenticated


class DuplicateAccount(Conflict):
    """An account has this e-mail address."""


class UnknownAccount(NotAuthenticated):
    """The account of the access token was deleted."""


class WrongCredentials(NotAuthenticated):
    """The e-mail address or the password is wrong."""


class SessionEnded(NotAuthenticated):
    """The refresh token is unknown, expired, or was used before."""
