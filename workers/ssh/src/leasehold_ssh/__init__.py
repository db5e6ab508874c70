"""Directories and commands on a host that ssh reaches."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.provider import Provider


def make(settings: Mapping[str, Any]) -> "Provider":
    """Build the plugin; it needs no setting, targets stand in the environments' configs."""
    from leasehold_ssh.provider import SshProvider

    return SshProvider(settings)


__all__ = ["make"]
