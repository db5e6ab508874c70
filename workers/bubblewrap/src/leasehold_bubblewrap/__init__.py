"""Commands behind bubblewrap: namespaces, a read-only system, seccomp and cgroup limits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.provider import Provider


def make(settings: Mapping[str, Any]) -> "Provider":
    """Build the plugin from ``root``, ``deployment`` and ``host_id``."""
    from leasehold_bubblewrap.provider import from_settings

    return from_settings(settings)
