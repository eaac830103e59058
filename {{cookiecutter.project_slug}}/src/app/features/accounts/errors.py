"""The errors of accounts."""

from app.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, TooManyRequests


class DuplicateAccount(Conflict):
    """An account has this e-mail address."""


class UnknownAccount(NotAuthenticated):
    """The account of the access token was deleted or disabled."""


class RoleRevoked(NotAuthenticated):
    """The access token has the permissions of a role that its account has lost."""


class InvalidGrant(NotAuthenticated):
    """A grant that OAuth clients must recognize (RFC 6749, 5.2)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, error="invalid_grant")


class WrongCredentials(InvalidGrant):
    """The e-mail address or the password is wrong."""


class AccountDisabled(InvalidGrant):
    """An administrator has disabled the account."""


class InvalidCode(InvalidGrant):
    """The code of a log-in with a provider is unknown, expired, or was used before."""


class SessionEnded(InvalidGrant):
    """The refresh token is unknown, expired, or was used before."""


class InvalidTokenRequest(InvalidInput):
    """The form of the token endpoint lacks a parameter, or has an unknown grant type."""

    def __init__(self, detail: str, error: str = "invalid_request") -> None:
        super().__init__(detail, error=error)


class WrongPassword(InvalidInput):
    """The current password of the account is wrong."""


class InvalidLink(InvalidInput):
    """The token of a link is unknown, expired, or was used before."""


class SessionNotFound(NotFound):
    """The account has no such session."""


class ProviderNotFound(NotFound):
    """No provider that logs users in has this name."""


class ProviderLinkNotFound(NotFound):
    """The account has no such link to a provider."""


class CodeChallengeRequired(InvalidInput):
    """A log-in that returns to the frontend needs a code challenge (RFC 7636)."""


class LoginExpired(InvalidInput):
    """The log-in is unknown, expired, was finished before, or began in another browser."""


class LoginRefused(NotAuthenticated):
    """The provider has not confirmed the user."""


class EmailNotVerified(NotAuthenticated):
    """The provider has not verified the e-mail address of the user."""


class OtherUserLinked(Conflict):
    """Another user of the provider logs in to the account with this address."""


class OnlyWayToLogIn(Conflict):
    """Without this link no log-in to the account is possible."""


class AccountNotFound(NotFound):
    """No account has this id or e-mail address."""


class UnknownRole(InvalidInput):
    """No role has this name."""


class KeyNotFound(NotFound):
    """The account has no such API key."""


class ScopeNotAllowed(InvalidInput):
    """An API key cannot have a permission that its account lacks."""


class TooManyKeys(Conflict):
    """The account has the maximum number of API keys."""


class TooManyAttempts(TooManyRequests):
    """A limit of attempts is exceeded. The response is the same for every address."""

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(f"Try again in {wait_seconds} s.", retry_after_seconds=wait_seconds)
