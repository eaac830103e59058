"""The errors of accounts."""

from app.errors import Conflict, NotAuthenticated


class DuplicateAccount(Conflict):
    type = "urn:problem:duplicate-account"
    title = "Duplicate Account"


class UnknownAccount(NotAuthenticated):
    type = "urn:problem:unknown-account"
    title = "Unknown Account"


class WrongCredentials(NotAuthenticated):
    type = "urn:problem:wrong-credentials"
    title = "Wrong Credentials"


class SessionEnded(NotAuthenticated):
    type = "urn:problem:session-ended"
    title = "Session Ended"
