"""`client.keys`, `client.tenants` and `client.retention`: who may do what, and what is kept."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import given, items, part
from leasehold.client.shapes import Key, NewKey, Retention, Tenant
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, as_json


class Keys:
    """
    `client.keys`: of one's own tenant, or with a key of the platform, the platform's.

    A key of the platform names a `tenant` to manage the keys of that one.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        name: str,
        *,
        role: str | None = None,
        expires: Duration | None = None,
        tenant: str | None = None,
    ) -> NewKey:
        """Make a key; `key` is shown this once and stored nowhere."""
        asked = given(name=name, role=role, expires_s=expires)
        return NewKey.read(self._wire.post(_of(tenant), as_json(asked)))

    def list(self, *, tenant: str | None = None) -> Iterator[Key]:
        """Yield keys, the newest first; never a key itself."""
        return map(Key.read, items(self._wire, _of(tenant), pages=False))

    def revoke(self, name: str, *, tenant: str | None = None) -> Key:
        """Take a key's rights away, from its next request on."""
        return Key.read(self._wire.ask("DELETE", f"{_of(tenant)}/{part(name)}"))


def _of(tenant: str | None) -> str:
    return "keys" if tenant is None else f"tenants/{part(tenant)}/keys"


class Tenants:
    """`client.tenants`; needs a key of the platform."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        name: str,
        *,
        description: str | None = None,
        limits: Mapping[str, int | None] | None = None,
    ) -> Tenant:
        """Make a tenant; it has no keys yet."""
        asked = given(name=name, description=description, limits=limits)
        return self.save(asked)

    def save(self, body: Mapping[str, Any]) -> Tenant:
        """Make a tenant from a body as the API takes it."""
        return Tenant.read(self._wire.post("tenants", body))

    def get(self, name: str) -> Tenant:
        """Return a tenant and how much it has under way."""
        return Tenant.read(self._wire.get(f"tenants/{part(name)}"))

    def list(self) -> Iterator[Tenant]:
        """Yield tenants, by name."""
        return map(Tenant.read, items(self._wire, "tenants", pages=False))

    def change(self, name: str, fields: Mapping[str, Any]) -> Tenant:
        """Change its limits (None: by the settings again) or its description."""
        return Tenant.read(self._wire.ask("PATCH", f"tenants/{part(name)}", body=fields))

    def archive(self, name: str) -> Tenant:
        """Take no new runs and leases of it; what lives goes on, its keys stay valid."""
        return Tenant.read(self._wire.post(f"tenants/{part(name)}/archive", repeat=True))

    def unarchive(self, name: str) -> Tenant:
        """Take runs of it again."""
        return Tenant.read(self._wire.post(f"tenants/{part(name)}/unarchive", repeat=True))


class Retentions:
    """`client.retention`: how long this tenant keeps what is over."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self) -> Retention:
        """Return for how many seconds after their end things are kept."""
        return Retention.read(self._wire.get("retention"))

    def set(self, **kept: Duration | None) -> Retention:
        """Say how long: `runs_s` and `output_s`; "never" or None is for ever."""
        return Retention.read(
            self._wire.ask("PUT", "retention", body=as_json(kept), repeat=True)
        )
