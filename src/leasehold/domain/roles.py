"""
What the holder of an API key may do; pure.

Three roles are within a tenant, from less to more. The fourth is beside them, not above: it
manages tenants, hosts and everybody's keys, and sees no row of any tenant. Who wants more with
it has to make a key of that tenant, and the tenant's history tells (ADR 0011).
"""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The role of a key."""

    VIEWER = "viewer"
    """Reads, without the values of configs."""

    OPERATOR = "operator"
    """Also creates and ends runs and gives leases back."""

    ADMIN = "admin"
    """Also decides where work may run, and who may ask: environments and keys."""

    ROOT = "root"
    """Of the platform: tenants, hosts, all keys; no tenant's runs, leases or environments."""

    def allows(self, needed: "Role") -> bool:
        """Return whether this role may do what another one may."""
        if self is needed:
            return True
        return self in _ORDER and needed in _ORDER[: _ORDER.index(self)]


_ORDER: Final = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
