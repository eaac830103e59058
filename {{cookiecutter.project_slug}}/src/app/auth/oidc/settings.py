"""Settings of the OpenID Connect provider."""

import re
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from app.settings_base import EnvironmentSettings, production_value

ISSUER = re.compile(r"https?://[^/\s@?#]+(/[^\s?#]*)?")
ENTRY = re.compile(r"(?P<name>[^\s,=]+)=(?P<permissions>[^\s,=]+( [^\s,=]+)*)")

NO_AUDIENCE = "OIDC_AUDIENCE is missing: set it to the audience of this service in access tokens"


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


Items = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]


def _check_issuer(issuer: str) -> str:
    if not ISSUER.fullmatch(issuer):
        raise ValueError(
            "it must be a URL without a query, as in https://login.example.com/realms/main"
        )
    return issuer


def parse_permissions(entries: list[str]) -> Mapping[str, frozenset[str]]:
    """Return the permissions of each scope or role.

    Raises:
        ValueError: an entry is invalid, or a name occurs twice.
    """
    found: dict[str, frozenset[str]] = {}
    for entry in entries:
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"{entry!r} is invalid: write name=permission, or several permissions with spaces "
                "between, as in editor=orders:read orders:write"
            )
        if match["name"] in found:
            raise ValueError(f"two entries have the name {match['name']}")
        found[match["name"]] = frozenset(match["permissions"].split())
    return found


def _check_permissions(entries: list[str]) -> list[str]:
    parse_permissions(entries)
    return entries


class OidcSettings(EnvironmentSettings):
    oidc_issuer: Annotated[str, AfterValidator(_check_issuer)] | None = Field(
        None,
        description="Issuer of access tokens: the URL of an OpenID Connect provider, as in its "
        "tokens. Without it, development responds to tokens with 503.",
        json_schema_extra=production_value(
            "`issuer` in the provider's discovery document; docs/oidc.md has examples.",
            required=True,
        ),
    )
    oidc_audience: Items = Field(
        [],
        description="Audiences of this service in access tokens, comma-separated. Tokens for "
        "others are refused.",
        json_schema_extra=production_value(
            "The identifier of this API at the provider; docs/oidc.md has examples.", required=True
        ),
    )
    oidc_client_id: str | None = Field(
        None,
        description="Public client with PKCE that /docs uses to log in.",
        json_schema_extra=production_value("Leave it out, unless /docs is served."),
    )
    oidc_permission_claims: Items = Field(
        ["scope", "scp", "permissions", "roles"],
        description="Claims with scopes and roles, comma-separated; realm_access.roles is a claim "
        "in a claim.",
    )
    oidc_permissions: Annotated[Items, AfterValidator(_check_permissions)] = Field(
        [],
        description="Permissions of scopes and roles, comma-separated: "
        "editor=orders:read orders:write. Every scope and role is a permission itself.",
        json_schema_extra=production_value("Leave it out, if scopes are permissions already."),
    )
    oidc_accept_id_tokens: bool = Field(
        default=False,
        description="Accept ID tokens as well. Only for providers whose access tokens are no JWTs.",
    )

    @model_validator(mode="after")
    def require_audience(self) -> Self:
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError(NO_AUDIENCE)
        return self

    def docs_origins(self) -> list[str]:
        found = super().docs_origins()
        if self.oidc_issuer is None:
            return found
        return [*found, "{0.scheme}://{0.netloc}".format(urlsplit(self.oidc_issuer))]

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        if self.oidc_issuer is None:
            found.append("OIDC_ISSUER is missing: set it to the issuer of access tokens")
        elif not self.oidc_issuer.startswith("https://"):
            found.append("OIDC_ISSUER must begin with https://")
        if not self.oidc_audience:
            found.append(NO_AUDIENCE)
        return found
