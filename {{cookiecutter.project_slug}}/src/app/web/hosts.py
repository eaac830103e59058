"""Check the host of a request, in its Host field and in its target (RFC 9112, 3.2)."""

import re
from collections.abc import Sequence

from starlette.types import Scope

from app.web.problems import Problem
from app.web.request_summary import is_probe

# A name, or an IPv6 address in brackets, and optionally a port (RFC 9110, 7.2).
HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9_.-]*)(:[0-9]*)?")
# ASGI has only the path of a target. `HttpProtocol` adds targets in absolute form as an extension.
TARGET_URL = "app.target_url"
AUTHORITY = re.compile(rb"(https?)://([^/?#]*)")
DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class InvalidHost(Problem):
    status = 400


class UntrustedHost(Problem):
    status = 400


class HostCheck:
    """Refuse requests with no host, several hosts, or a host that is not served."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Allow these names. `*` is every name, and `*.example.com` every subdomain."""
        self._serves_every_host = "*" in allowed
        names = [host.encode() for host in allowed]
        self._hosts = frozenset(name for name in names if not name.startswith(b"*."))
        self._domains = tuple(name[1:] for name in names if name.startswith(b"*."))

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        """Return the problem with a request's host, or None.

        Args:
            scope: the request.
            headers: the first header of each name.
        """
        name = headers.get(b"host")
        if name is None or len(headers) < len(scope["headers"]) or "extensions" in scope:
            fields = sum(field == b"host" for field, _ in scope["headers"])
            if fields > 1 or (fields == 0 and scope["http_version"] == "1.1"):
                return InvalidHost("A request must have exactly one Host field.")
            extension = scope.get("extensions", {}).get(TARGET_URL)
            if extension:
                target = AUTHORITY.match(extension["url"].lower())
                if not target or (
                    name is not None and not _is_same(name.lower(), *target.groups())
                ):
                    return InvalidHost("The request's target and its Host field differ.")
                name = target[2]
        if self._serves_every_host or is_probe(scope["path"]):
            return None
        host = HOST.fullmatch((name or b"").lower())
        if host and (host[1] in self._hosts or host[1].endswith(self._domains)):
            return None
        return UntrustedHost("This service does not serve that host name.")


def _is_same(host: bytes, scheme: bytes, authority: bytes) -> bool:
    port = DEFAULT_PORTS[scheme]
    return host.removesuffix(port) == authority.removesuffix(port)
