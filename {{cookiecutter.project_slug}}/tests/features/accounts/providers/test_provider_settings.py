"""The settings of providers that log users in."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.features.accounts.providers.setup import open_providers
from app.features.accounts.settings import AccountSettings

SECRET = "a-secret-of-this-test"
ENTRY = {
    "name": "keycloak",
    "discovery_url": "https://login.example.com/realms/main/.well-known/openid-configuration",
    "client_id": "api",
    "client_secret": SECRET,
}
GOOGLE = {"google_client_id": "an id", "google_client_secret": SECRET}
GITHUB = {"github_client_id": "an id", "github_client_secret": SECRET}


def create(**values: Any) -> AccountSettings:
    return AccountSettings.model_validate(values)


def problems_of(**values: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        create(**values)
    assert SECRET not in str(caught.value.errors(include_input=False))
    return [
        line
        for error in caught.value.errors()
        for line in error["msg"].removeprefix("Value error, ").splitlines()
    ]


def with_entry(**changes: object) -> str:
    return json.dumps([{k: v for k, v in (ENTRY | changes).items() if v is not None}])


async def test_providers_are_those_of_the_settings() -> None:
    settings = create(login_providers=json.dumps([ENTRY]), **GITHUB, **GOOGLE)
    assert settings.login_provider_names == ["google", "github", "keycloak"]
    async with open_providers(settings) as providers:
        assert list(providers) == ["google", "github", "keycloak"]
    assert settings.login_providers[0].issuer == "https://login.example.com/realms/main"


async def test_no_provider_is_the_default() -> None:
    async with open_providers(create()) as providers:
        assert providers == {}


@pytest.mark.parametrize("missing", [*GOOGLE, *GITHUB])
def test_id_and_secret_come_together(missing: str) -> None:
    values = {name: value for name, value in (GOOGLE | GITHUB).items() if name != missing}
    name = missing.partition("_")[0].upper()
    expected = f"{name}_CLIENT_ID and {name}_CLIENT_SECRET: set both, or neither"
    assert problems_of(**values) == [expected]


EXAMPLE = "a JSON list of objects with name, discovery_url, client_id and client_secret"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keycloak", f"it must be {EXAMPLE}"),
        (SECRET, f"it must be {EXAMPLE}"),
        (json.dumps(ENTRY), f"it must be {EXAMPLE}"),
        ('["keycloak"]', "entry 1 must be an object"),
        (with_entry(client_secret=None), "entry 1, client_secret: Field required"),
        (with_entry(client_secret=""), "entry 1, client_secret: Value should have at least"),
        (with_entry(client_id=""), "entry 1, client_id: String should have at least"),
        (with_entry(scope="email"), "entry 1, scope: Extra inputs are not permitted"),
        (with_entry(name="Key Cloak"), "entry 1, name: String should match pattern"),
        (with_entry(name="../me"), "entry 1, name: String should match pattern"),
        (with_entry(discovery_url="login.example.com"), "it must be an https:// URL"),
        (with_entry(discovery_url="ftp://a.example"), "it must be an https:// URL"),
        (with_entry(discovery_url="https://u:p@a.example/x"), "it must be an https:// URL"),
        (with_entry(discovery_url="https://login.example.com"), "it must end with /.well-known/"),
    ],
)
def test_invalid_list_of_providers_is_refused_without_its_secrets(text: str, problem: str) -> None:
    (found,) = problems_of(login_providers=text)
    assert problem in found


def test_two_providers_with_one_name_are_refused() -> None:
    assert problems_of(login_providers=json.dumps([ENTRY, ENTRY])) == [
        "LOGIN_PROVIDERS: two providers have the name keycloak"
    ]
    google = json.dumps([ENTRY | {"name": "google"}])
    assert problems_of(login_providers=google, **GOOGLE) == [
        "LOGIN_PROVIDERS: two providers have the name google"
    ]


@pytest.mark.parametrize(
    "url", ["app.example.com", "javascript:alert(1)", "https://app.example.com/#login"]
)
def test_page_of_the_frontend_is_a_url_without_a_fragment(url: str) -> None:
    assert problems_of(login_redirect_url=url)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {
                "login_providers": with_entry(
                    discovery_url=ENTRY["discovery_url"].replace("s:", ":", 1)
                )
            },
            "LOGIN_PROVIDERS: the discovery_url of keycloak must begin with https://",
        ),
        (
            {"login_redirect_url": "http://app.example.com"},
            "LOGIN_REDIRECT_URL must begin with https://",
        ),
        ({"github_url": "http://github.example.com"}, "GITHUB_URL must begin with https://"),
        ({"login_providers": with_entry(), **GOOGLE, **GITHUB}, None),
        ({"login_redirect_url": "https://app.example.com/?view=login"}, None),
    ],
)
def test_http_is_insecure(values: dict[str, Any], problem: str | None) -> None:
    before = create().insecure_values()
    found = [line for line in create(**values).insecure_values() if line not in before]
    assert found == ([problem] if problem else [])
