"""
What of a shape its reader does not see; pure.

Values of variables are in no shape, only their names. A viewer does not see the values of
configs either: they may be passwords that somebody should have stored as secrets.
"""

from collections.abc import Mapping
from typing import Any, Final

from leasehold.domain.roles import Role

HIDDEN: Final = "***"


def environment(shape: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return an environment as a role sees it."""
    return {**shape, "config": _config(shape["config"], role)}


def lease(shape: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return a lease as a role sees it: its metadata hold what its environment was."""
    metadata = dict(shape["metadata"] or {})
    if "config" in metadata:
        metadata["config"] = _config(metadata["config"], role)
    return {**shape, "metadata": metadata}


def host(shape: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return a host as a role sees it: tenants not how much of it others use."""
    if role is Role.ROOT:
        return dict(shape)
    return {name: value for name, value in shape.items() if name != "leases"}


def _config(config: Any, role: Role) -> Any:
    if role.allows(Role.OPERATOR) or not isinstance(config, Mapping):
        return config
    return dict.fromkeys(config, HIDDEN)
