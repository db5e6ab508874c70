"""Hardened containers on this host's Docker Engine or Podman."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.provider import Provider


def make(settings: Mapping[str, Any]) -> "Provider":
    """Build the plugin from ``root``, ``deployment``, ``host_id`` and, if given, ``socket``."""
    from leasehold_docker.making import from_settings

    return from_settings(settings)


__all__ = ["make"]
