"""Deploy a commit to every Render service that runs its image.

    python scripts/deploy_to_render.py COMMIT

It requires RENDER_API_KEY in the environment. Render builds the commit from the repository. This
program does not run migrations: each instance of the web service does when it starts.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

SERVICES = ["example-service"]  # first: it migrates the database, which the others use
SERVICES += ["example-service-worker"]  # option: worker

API = "https://api.render.com/v1"
TIMEOUT_SECONDS = 30  # of one request
DEPLOY_SECONDS = 1200
PAUSE_SECONDS = 5.0
UNDER_WAY = {
    *("created", "queued", "build_in_progress", "pre_deploy_in_progress", "update_in_progress"),
}


class NotDeployed(Exception):
    """A deployment failed, for the reason in the message. The old version keeps running."""


def call_api(path: str, document: object = None) -> Any:
    """Send a request to Render's API, a POST if there is a document, and return the response.

    Raises:
        NotDeployed: the request failed, or its status is an error.
    """
    request = urllib.request.Request(  # noqa: S310 - the scheme is API's https; only tests set another address
        os.environ.get("RENDER_API_URL", API) + path,
        json.dumps(document).encode() if document is not None else None,
        {
            "Authorization": f"Bearer {os.environ.get('RENDER_API_KEY', '').strip()}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the scheme is API's https; only tests set another address
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise NotDeployed(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise NotDeployed(f"{path}: {error}") from error


def find_service(name: str) -> str:
    """Return the id of a service.

    Raises:
        NotDeployed: the owner of the API key has no service of that name, or several.
    """
    found = call_api(f"/services?{urllib.parse.urlencode({'name': name})}")
    ids = [entry["service"]["id"] for entry in found if entry["service"]["name"] == name]
    if len(ids) != 1:
        raise NotDeployed(f"found {len(ids)} services with the name {name}")
    return str(ids[0])


def deploy(name: str, commit: str) -> None:
    """Deploy one service, and wait until it is live.

    Raises:
        NotDeployed: the service was not found, or the deployment failed or timed out.
    """
    deploys = f"/services/{find_service(name)}/deploys"
    state = call_api(deploys, {"commitId": commit})
    deadline = time.monotonic() + DEPLOY_SECONDS
    while state["status"] in UNDER_WAY and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        state = call_api(f"{deploys}/{state['id']}")
    if state["status"] != "live":
        raise NotDeployed(f"{name}: {state['status']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="SHA of the commit to build")
    commit = parser.parse_args().commit
    try:
        for name in SERVICES:
            deploy(name, commit)
    except NotDeployed as error:
        sys.exit(f"not deployed: {error}")


if __name__ == "__main__":
    main()
