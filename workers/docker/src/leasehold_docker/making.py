"""Making the plugin from a worker's settings."""

from collections.abc import Mapping
from typing import Any

from leasehold.provider import ConfigRejectedError

from leasehold_docker.engine import Engine, find_socket
from leasehold_docker.provider import DockerProvider


def from_settings(settings: Mapping[str, Any]) -> DockerProvider:
    """
    Build the plugin.

    Raises:
        ConfigRejectedError: The root is not an absolute path, or the engine not on this host.
    """
    root = str(settings.get("root") or "")
    if not root.startswith("/"):
        raise ConfigRejectedError(f"root must be an absolute path, not {root!r}")
    return DockerProvider(root=root, engine=Engine(find_socket(settings.get("socket"))))
