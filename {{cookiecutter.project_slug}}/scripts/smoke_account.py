"""The account of the smoke test. `--write` registers it, and it stays."""

import json
import secrets
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoke_test import Service


def access_token(service: "Service") -> str:
    """Register a random address of a reserved domain, log in, and return the access token.

    Raises:
        SmokeTestFailed: registration or login failed.
    """
    email, password = f"{secrets.token_hex(8)}@smoke-test.invalid", secrets.token_urlsafe(24)
    account = json.dumps({"email": email, "password": password})
    service.expect(201, "/accounts", "POST", body=account, Content_Type="application/json")
    login = urllib.parse.urlencode({"username": email, "password": password})
    form = "application/x-www-form-urlencoded"
    tokens = service.expect(200, "/accounts/login", "POST", body=login, Content_Type=form)
    return str(tokens.json()["access_token"])
