"""The roles of accounts, and their permissions. Add roles of your own here.

`app accounts grant EMAIL ROLE` gives a role to an account.
"""

from collections.abc import Iterable

ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset(
        {
            "accounts:read",
            "accounts:write",
            "jobs:read",  # option: worker
        }
    ),
}

# The permissions in the OpenAPI document, with the roles that have them.
SCOPES = {
    permission: f"Roles: {', '.join(role for role in ROLES if permission in ROLES[role])}"
    for permission in sorted(frozenset[str]().union(*ROLES.values()))
}


def permissions_of(roles: Iterable[str]) -> frozenset[str]:
    """Return the permissions of roles. A role that was removed from ROLES has none."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))
