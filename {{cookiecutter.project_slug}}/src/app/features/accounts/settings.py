"""Settings of accounts: those of access tokens and mails, and the providers that log users in.

docs/accounts.md describes the registration of this service at a provider.
"""

import json
import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from app.auth.settings import AuthSettings
from app.mail.settings import MailSettings, check_page_url
from app.settings_base import production_value

DISCOVERY = "/.well-known/openid-configuration"
GOOGLE, GITHUB = "google", "github"
GITHUB_URL = "https://github.com"
URL = re.compile(r"https?://[^/\s@?#]+(/[^\s?#]*)?")


def _check_url(url: str) -> str:
    if not URL.fullmatch(url):
        raise ValueError("it must be an https:// URL without a query")
    return url.rstrip("/")


class LoginProvider(BaseModel):
    """An OpenID Connect provider that logs users in, and this service's registration there."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    discovery_url: Annotated[str, AfterValidator(_check_url)]
    client_id: Annotated[str, StringConstraints(min_length=1)]
    client_secret: Annotated[SecretStr, Field(min_length=1)]

    @field_validator("discovery_url")
    @classmethod
    def check_discovery_url(cls, url: str) -> str:
        if not url.endswith(DISCOVERY):
            raise ValueError(f"it must end with {DISCOVERY}")
        return url

    @property
    def issuer(self) -> str:
        """The issuer without a final slash (OpenID Connect Discovery 1.0, 4.3)."""
        return self.discovery_url.removesuffix(DISCOVERY)


_LIST = TypeAdapter(list[LoginProvider])
EXAMPLE = "a JSON list of objects with name, discovery_url, client_id and client_secret"


def _parse_providers(value: object) -> object:
    """Parse the JSON text of a variable. Errors name the field, and never its value."""
    if not isinstance(value, str):
        return value
    try:
        return _LIST.validate_python(json.loads(value))
    except json.JSONDecodeError as error:
        raise ValueError(f"it must be {EXAMPLE}") from error
    except ValidationError as error:
        raise ValueError("\n".join(map(_explain, error.errors()))) from error


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    location, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
    match location:
        case ():
            return f"it must be {EXAMPLE}"
        case (number,):
            return f"entry {number + 1} must be an object"
        case (number, field, *_):
            return f"entry {number + 1}, {field}: {message}"
    raise AssertionError


class AccountSettings(MailSettings, AuthSettings):
    login_redirect_url: Annotated[str, AfterValidator(check_page_url)] | None = Field(
        None,
        description="Page of the frontend to which a log-in with a provider returns, with a code "
        "in the fragment. Without it, the response has the tokens.",
        json_schema_extra=production_value(
            "An https:// URL of the frontend. Without providers, leave it out."
        ),
    )
    google_client_id: str | None = Field(
        None,
        description="OAuth client id at Google. With its secret, users log in with Google.",
        json_schema_extra=production_value("Google Cloud console, Google Auth Platform, Clients."),
    )
    google_client_secret: SecretStr | None = Field(
        None,
        description="Secret of GOOGLE_CLIENT_ID.",
        json_schema_extra=production_value("Google shows it once, when it creates the client."),
    )
    github_client_id: str | None = Field(
        None,
        description="Client id of an OAuth app at github.com. With its secret, its users log in.",
        json_schema_extra=production_value("https://github.com/settings/developers, OAuth Apps."),
    )
    github_client_secret: SecretStr | None = Field(
        None,
        description="Secret of GITHUB_CLIENT_ID.",
        json_schema_extra=production_value("The page of the OAuth app shows it once."),
    )
    github_url: Annotated[str, AfterValidator(_check_url)] = Field(
        GITHUB_URL,
        description="Address of an Enterprise Server, in place of https://github.com.",
        json_schema_extra=production_value("Leave it out, unless you have such a server."),
    )
    login_providers: Annotated[list[LoginProvider], NoDecode, BeforeValidator(_parse_providers)] = (
        Field(
            [],
            description="Further OpenID Connect providers: a JSON list of objects with name, "
            "discovery_url, client_id and client_secret.",
            json_schema_extra=production_value(
                "The provider shows the values; docs/accounts.md has an example."
            ),
        )
    )

    @model_validator(mode="after")
    def check_providers(self) -> Self:
        found = []
        for name in (GOOGLE, GITHUB):
            has_id, has_secret = (
                getattr(self, f"{name}_client_{part}") is not None for part in ("id", "secret")
            )
            if has_id != has_secret:
                prefix = f"{name}_CLIENT_".upper()
                found.append(f"{prefix}ID and {prefix}SECRET: set both, or neither")
        names = self.login_provider_names
        found += [
            f"LOGIN_PROVIDERS: two providers have the name {name}"
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
        if found:
            raise ValueError("\n".join(found))
        return self

    @property
    def login_provider_names(self) -> list[str]:
        """The names of all providers that log users in, in the order of their settings."""
        found = [GOOGLE] if self.google_client_id else []
        found += [GITHUB] if self.github_client_id else []
        return found + [provider.name for provider in self.login_providers]

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        found += [
            f"LOGIN_PROVIDERS: the discovery_url of {provider.name} must begin with https://"
            for provider in self.login_providers
            if urlsplit(provider.discovery_url).scheme != "https"
        ]
        urls = {"LOGIN_REDIRECT_URL": self.login_redirect_url, "GITHUB_URL": self.github_url}
        found += [
            f"{name} must begin with https://"
            for name, url in urls.items()
            if url and urlsplit(url).scheme != "https"
        ]
        return found
