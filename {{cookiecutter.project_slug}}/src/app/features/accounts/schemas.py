"""What goes in and out."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Secret, StringConstraints

SHORTEST_PASSWORD = 15  # where it is the only factor: NIST SP 800-63B-4, 3.1.1.2
LONGEST_PASSWORD = 128  # NIST wants 64 at least; unbounded, it would be work for nothing

# What browsers take for an e-mail address (the HTML standard, 4.10.5.1.5). Only ASCII, so that
# there is one lower case and no look-alikes; domains of other alphabets have an xn-- form.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*$"
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=254, pattern=_EMAIL),
]
Password = Secret[Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PASSWORD)]]
NewPassword = Secret[
    Annotated[str, StringConstraints(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)]
]
RefreshToken = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{64}$")]


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email = Field(examples=["grace@navy.example"])
    password: NewPassword = Field(examples=["a nanosecond is 30 cm"])


class Account(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: str
    created_at: datetime


class Login(BaseModel):
    """The password grant of OAuth 2.0 (RFC 6749, 4.3.2); its other fields mean nothing here."""

    grant_type: Literal["password"] = "password"
    username: Email = Field(description="The e-mail address.")
    password: Password


class SessionToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    refresh_token: RefreshToken


class Tokens(BaseModel):
    """As OAuth 2.0 has it (RFC 6749, 5.1)."""

    access_token: str = Field(description="Send it as `Authorization: Bearer ...`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - no secret: what RFC 6750 calls this kind of token
    expires_in: int = Field(description="Seconds for which the access token is good.")
    refresh_token: str = Field(description="Good once, for new tokens.")
