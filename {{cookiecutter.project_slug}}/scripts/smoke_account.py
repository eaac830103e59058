"""The account of the smoke test. `--write` registers it, and deletes it at the end."""

import json
import secrets
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoke_test import Service


def log_in(service: "Service") -> str:
    """Register a random address of a reserved domain, log in, and return the password.

    The service sends no mail to this domain. Its access token is sent with further requests.

    Raises:
        SmokeTestFailed: registration or login failed.
    """
    email, password = f"{secrets.token_hex(8)}@smoke-test.invalid", secrets.token_urlsafe(24)
    account = json.dumps({"email": email, "password": password})
    service.expect(201, "/accounts", "POST", body=account, Content_Type="application/json")
    login = urllib.parse.urlencode({"username": email, "password": password})
    form = "application/x-www-form-urlencoded"
    tokens = service.expect(200, "/accounts/login", "POST", body=login, Content_Type=form)
    service.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
    return password


def delete_account(service: "Service", password: str) -> None:
    """Delete the account.

    Raises:
        SmokeTestFailed: the deletion failed.
    """
    body = json.dumps({"current_password": password})
    service.expect(204, "/accounts/me/deletion", "POST", body=body, Content_Type="application/json")
    service.expect(401, "/accounts/me")
