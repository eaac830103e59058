"""Request an identity token from GitHub, and print it for kubectl, which runs this program.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

TIMEOUT_SECONDS = 30


class NoToken(Exception):
    """GitHub issued no token, for the reason in the message."""


def request_token() -> str:
    """Request a token whose audience is the API server.

    Raises:
        NoToken: the job lacks the permission `id-token: write`, or the request failed.
    """
    url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL", "")
    if not url:
        raise NoToken("the job has no permission `id-token: write`")
    url += f"&{urlencode({'audience': os.environ.get('KUBERNETES_SERVER', '')})}"
    bearer = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"})  # noqa: S310 - the URL is GitHub's
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the URL is GitHub's
            return str(json.load(response)["value"])
    except urllib.error.HTTPError as error:
        with error:
            raise NoToken(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoToken(f"{type(error).__name__}: {error}") from error


def credential(token: str) -> dict[str, Any]:
    """Return the document that kubectl expects, with the expiry from the token.

    Raises:
        NoToken: the token is not a JSON Web Token.
    """
    status = {"token": token}
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError) as error:
        raise NoToken("the response is not a JSON Web Token") from error
    if expiry := claims.get("exp"):
        moment = datetime.fromtimestamp(expiry, UTC)
        status["expirationTimestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }


def main() -> None:
    try:
        print(json.dumps(credential(request_token())))
    except NoToken as error:
        sys.exit(f"no identity token: {error}")


if __name__ == "__main__":
    main()
