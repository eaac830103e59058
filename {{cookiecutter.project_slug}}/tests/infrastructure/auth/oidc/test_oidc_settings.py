from typing import Any

import pytest
from pydantic import ValidationError

from app.auth.oidc.settings import OidcSettings, parse_permissions

ISSUER = "https://login.example.com/realms/main"


@pytest.mark.parametrize(
    "issuer",
    ["", "login.example.com", "ftp://a.example", f"{ISSUER}?x", f"{ISSUER}#x", "https://u:p@a"],
)
def test_malformed_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(ValidationError, match="must be a URL without a query"):
        OidcSettings(oidc_issuer=issuer, oidc_audience=["a"])


@pytest.mark.parametrize("issuer", [ISSUER, "https://a.example/", "http://localhost:9400"])
def test_issuer_is_kept_as_it_is_written(issuer: str) -> None:
    assert OidcSettings(oidc_issuer=issuer, oidc_audience=["a"]).oidc_issuer == issuer


def test_issuer_without_an_audience_is_refused() -> None:
    with pytest.raises(ValidationError, match="OIDC_AUDIENCE is missing"):
        OidcSettings(oidc_issuer=ISSUER)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "OIDC_AUDIENCE is missing"),
        ({"oidc_audience": ["a"]}, "OIDC_ISSUER is missing"),
        ({"oidc_issuer": "http://a.example", "oidc_audience": ["a"]}, "begin with https://"),
        ({"oidc_issuer": ISSUER, "oidc_audience": ["a"]}, None),
    ],
)
def test_missing_or_unencrypted_issuer_is_insecure(
    values: dict[str, Any], problem: str | None
) -> None:
    problems = OidcSettings(**values).insecure_values()
    assert len(problems) == (2 if not values else 0 if problem is None else 1)
    assert (problem or "") in "".join(problems)


def test_lists_are_comma_separated_and_keep_their_case() -> None:
    settings = OidcSettings.model_validate({"oidc_audience": "api://A, b,"})
    assert settings.oidc_audience == ["api://A", "b"]


def test_permissions_of_names_are_parsed() -> None:
    assert parse_permissions(["editor=a:read a:write", "admin=all"]) == {
        "editor": {"a:read", "a:write"},
        "admin": {"all"},
    }


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["editor"], "'editor' is invalid: write name=permission"),
        (["editor="], "is invalid"),
        (["=a"], "is invalid"),
        (["editor=a=b"], "is invalid"),
        (["editor=a", "editor=b"], "two entries have the name editor"),
    ],
)
def test_invalid_permissions_are_refused(entries: list[str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        OidcSettings(oidc_permissions=entries)
