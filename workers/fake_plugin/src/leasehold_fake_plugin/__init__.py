"""The smallest complete sandbox provider, and the example for authors."""

from collections.abc import Mapping
from typing import Any

from leasehold.provider import Provider


def make(settings: Mapping[str, Any]) -> Provider:
    """Build the provider; `settings` needs ``root``, see the README."""
    from leasehold_fake_plugin.provider import FakePlugin

    return FakePlugin(settings)


__all__ = ["make"]
