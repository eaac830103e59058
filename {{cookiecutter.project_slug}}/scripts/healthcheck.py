"""The health check of Docker: succeed while /health/ready returns 200.

It needs no curl, and imports few modules, because Docker runs it every few seconds.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4  # Docker's own limit is 5

connection = http.client.HTTPConnection(
    "localhost", int(os.environ.get("PORT") or 8000), timeout=TIMEOUT_SECONDS
)
try:
    connection.request("GET", "/health/ready")
    response = connection.getresponse()
    body = response.read(1000).decode(errors="replace")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no response: {error}")
if response.status != http.HTTPStatus.OK:
    sys.exit(f"{response.status}: {body}")
