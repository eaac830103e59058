"""Standard OAuth 2.0 clients log in and refresh by themselves."""

import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from conftest import Bake
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session
from test_first_minutes import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.posix]

PASSWORD = "a nanosecond is 30 cm"


@pytest.fixture(scope="module")
def url(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("oauth")
    project = bake(lock=True, auth="accounts", redis=False).copy_to(folder / "project")
    uv_run = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable]
    with serving([*uv_run, "app", "dev"], project, environment(Path(folder))) as url:
        yield url


@pytest.fixture
def email(url: str) -> str:
    """Register an account."""
    email = f"{uuid.uuid4().hex}@navy.example"
    httpx.post(f"{url}/accounts", json={"email": email, "password": PASSWORD}).raise_for_status()
    return email


def test_authlib_logs_in_and_refreshes_by_itself(url: str, email: str) -> None:
    with OAuth2Client(token_endpoint=f"{url}/accounts/login") as client:
        token = dict(client.fetch_token(username=email, password=PASSWORD))
        assert client.get(f"{url}/accounts/me").json()["email"] == email
        client.token["expires_at"] = int(time.time()) - 1
        assert client.get(f"{url}/accounts/me").json()["email"] == email
        assert client.token["refresh_token"] != token["refresh_token"]
        httpx.post(f"{url}/accounts/logout", json={"refresh_token": token["refresh_token"]})
        with pytest.raises(OAuthError) as refused:
            client.refresh_token()
        assert refused.value.error == "invalid_grant"


def test_requests_oauthlib_logs_in_and_refreshes_by_itself(
    url: str, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # HTTP on this machine
    tokens: list[dict[str, str]] = []
    endpoint = f"{url}/accounts/login"
    with OAuth2Session(
        client=LegacyApplicationClient("app"),
        auto_refresh_url=endpoint,
        token_updater=tokens.append,
    ) as client:
        first = client.fetch_token(endpoint, username=email, password=PASSWORD)
        assert client.get(f"{url}/accounts/me").json()["email"] == email
        client.token = first | {"expires_at": time.time() - 1}
        assert client.get(f"{url}/accounts/me").json()["email"] == email
        (second,) = tokens
        assert second["refresh_token"] != first["refresh_token"]
        with pytest.raises(InvalidGrantError):
            client.fetch_token(endpoint, username=email, password=PASSWORD + "x")
