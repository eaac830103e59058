"""Requests and responses."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Secret, StringConstraints
from pydantic_core import PydanticCustomError

from app.db.pagination import Cursor, NextCursor
from app.features.accounts.common_passwords import refuse_common_password

MIN_PASSWORD_LENGTH = 15  # for a single factor: NIST SP 800-63B-4, 3.1.1.2
MAX_PASSWORD_LENGTH = 128  # NIST requires that at least 64 are accepted

# The e-mail addresses that browsers accept (the HTML standard, 4.10.5.1.5). Only ASCII, so that
# there is one lower case and no look-alikes; domains of other alphabets have an xn-- form.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*$"


def _refuse_encoded_word(email: str) -> str:
    """Refuse =?utf-8?q?...?=, which a mail program decodes into another address (RFC 2047)."""
    if "=?" in email:
        raise PydanticCustomError("encoded_word", "An address cannot contain =?")
    return email


Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=_EMAIL),
    AfterValidator(_refuse_encoded_word),
]
NewPassword = Secret[
    Annotated[
        str,
        StringConstraints(min_length=MIN_PASSWORD_LENGTH, max_length=MAX_PASSWORD_LENGTH),
        AfterValidator(refuse_common_password),
    ]
]


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email = Field(examples=["grace@navy.example"])
    password: NewPassword = Field(examples=["a nanosecond is 30 cm"])


class AccountRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: str
    email_verified_at: datetime | None
    has_password: bool = Field(description="Without a password, only providers log the user in.")
    created_at: datetime


class AdministeredAccount(AccountRead):
    """An account, for administrators."""

    roles: list[str]
    disabled_at: datetime | None


class AccountQuery(BaseModel):
    """The query parameters of the list."""

    model_config = ConfigDict(extra="forbid")

    sort: Literal["email", "-email"] = Field(
        "email", description="A minus sign sorts in descending order."
    )
    cursor: Cursor = None
    limit: int = Field(50, ge=1, le=1000, description="Maximum number of accounts.")


class AccountPage(BaseModel):
    items: list[AdministeredAccount]
    next_cursor: NextCursor


class TokenForm(BaseModel):
    """The grants `password`, `refresh_token` and `authorization_code` of OAuth 2.0 (RFC 6749).

    The service ignores its other fields. It checks the values itself, because OAuth clients read
    the member `error` of a problem and not the status 422.
    """

    grant_type: str = Field(
        "password", description="`password`, `refresh_token` or `authorization_code`."
    )
    username: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)] | None = (
        Field(None, description="The e-mail address, for the grant `password`.")
    )
    password: Secret[str] | None = Field(None, description="For the grant `password`.")
    refresh_token: str | None = Field(None, description="For the grant `refresh_token`.")
    code: str | None = Field(
        None, description="Of a log-in with a provider, for the grant `authorization_code`."
    )
    code_verifier: str | None = Field(
        None, description="Of its code challenge, for the grant `authorization_code`."
    )


class EmailAddress(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email = Field(examples=["grace@navy.example"])


class LinkUse(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=100, description="From the fragment of the link.")


class PasswordReset(LinkUse):
    password: NewPassword


class PasswordConfirmation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    current_password: Secret[str] | None = Field(
        None,
        description="Required if the account has a password. Otherwise the access token must be "
        "that of a recent log-in.",
    )


class PasswordChange(PasswordConfirmation):
    new_password: NewPassword


class EmailChange(PasswordConfirmation, EmailAddress):
    """A new address."""


class SessionRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    user_agent: str | None = Field(description="The device, as its log-in named it.")
    last_used_at: datetime = Field(description="The last log-in or refresh.")
    created_at: datetime
    expires_at: datetime = Field(description="The end of the session without a refresh.")


class ProviderRead(BaseModel):
    name: str


class ProviderLinkRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    provider: str
    email: str = Field(description="The address at the provider, at the first log-in.")
    last_used_at: datetime = Field(description="The last log-in.")
    created_at: datetime


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$"
        ),
    ] = Field(examples=["nightly import"])
    scopes: list[str] = Field(
        max_length=50, description="Permissions of the account.", examples=[["accounts:read"]]
    )
    expires_in_days: int = Field(90, ge=1, le=365)


class KeyRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    prefix: str = Field(description="The beginning of the key, to recognize it.")
    scopes: list[str]
    expires_at: datetime
    last_used_at: datetime | None = Field(description="Exact to a minute.")
    created_at: datetime


class KeyCreated(KeyRead):
    key: str = Field(description="Send it as `Authorization: Bearer ...`. It is not shown again.")


class SessionToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: str


class Tokens(BaseModel):
    """The response of OAuth 2.0 (RFC 6749, 5.1)."""

    access_token: str = Field(description="Send it as `Authorization: Bearer ...`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of this kind of token in RFC 6750
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(description="Valid for one refresh.")
