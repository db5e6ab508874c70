"""`client.secrets`: values go in, and no request brings one out again."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import items, part
from leasehold.client.shapes import Secret
from leasehold.client.wire import Wire


class Secrets:
    """`client.secrets`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def set(self, name: str, value: str) -> Secret:
        """
        Store a value as the name's next version.

        Not repeated when its answer is lost, since that could make two versions.
        """
        path = f"secrets/{part(name)}"
        return Secret.read(self._wire.ask("PUT", path, body={"value": value}))

    def get(self, name: str) -> Secret:
        """Return a name's version and where it is used; never its value."""
        return Secret.read(self._wire.get(f"secrets/{part(name)}"))

    def list(self) -> Iterator[Secret]:
        """Yield names and versions."""
        return map(Secret.read, items(self._wire, "secrets", pages=False))

    def delete(self, name: str) -> Mapping[str, Any]:
        """Take a name away; return who names it still."""
        found: Mapping[str, Any] = self._wire.ask("DELETE", f"secrets/{part(name)}")
        return found

    def rotate(self) -> Mapping[str, Any]:
        """Encrypt the values of all tenants anew; needs a key of the platform."""
        found: Mapping[str, Any] = self._wire.post("secrets/rotate", repeat=True)
        return found
