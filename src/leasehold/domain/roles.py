"""What the holder of an API key may do, from less to more; pure."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The role of a key within its tenant."""

    VIEWER = "viewer"
    """Reads, without the values of configs."""

    OPERATOR = "operator"
    """Also creates and ends runs and gives leases back."""

    ADMIN = "admin"
    """Also decides where work may run, and who may ask: environments and keys."""

    def allows(self, needed: "Role") -> bool:
        """Return whether this role may do what another one may."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER: Final = tuple(Role)
