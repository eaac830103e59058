"""The client of a request: requests are counted by its address."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address

from starlette.types import Scope


def client_of(scope: Scope) -> str:
    """Return the client's address. Behind a trusted proxy it is the address that the proxy saw."""
    client = scope.get("client")
    return _network(client[0]) if client else "unknown"


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """Return the /64 network of an IPv6 address: a client may use every address in its network."""
    try:
        address = ip_address(host)
    except ValueError:
        return host  # a Unix socket has no address
    if isinstance(address, IPv4Address):
        return host
    return str(address.ipv4_mapped or IPv6Network((address.packed, 64), strict=False))
