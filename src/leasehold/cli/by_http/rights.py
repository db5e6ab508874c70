"""Secrets, schedules, keys, tenants and retention, over HTTP."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leasehold.cli import tenancy
from leasehold.cli.ports import Shape
from leasehold.domain.roles import Role
from leasehold.errors import ForbiddenError
from leasehold.ids import DEFAULT_TENANT

if TYPE_CHECKING:
    from leasehold.client import Client
    from leasehold.domain.schedules import ScheduleChange, ScheduleSpec
    from leasehold.orchestrator.keys import KeySpec
    from leasehold.orchestrator.tenants import TenantChange, TenantSpec


class HttpSecrets:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def set(self, name: str, value: str) -> Shape:
        secret = self._client.secrets.set(name, value)
        return {"name": secret.name, "version": secret.version}

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.secrets.list()]

    def delete(self, name: str) -> Shape:
        return dict(self._client.secrets.delete(name))

    def rotate(self) -> Shape:
        return dict(self._client.secrets.rotate())


class HttpSchedules:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def create(self, spec: "ScheduleSpec") -> Shape:
        body: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.schedules.save(body).raw)

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.schedules.list()]

    def show(self, name: str, *, times: int) -> Shape:
        return dict(self._client.schedules.get(name, times=times).raw)

    def change(self, name: str, wanted: "ScheduleChange") -> Shape:
        body: dict[str, Any] = wanted.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.schedules.change(name, body).raw)

    def pause(self, name: str) -> Shape:
        return dict(self._client.schedules.pause(name).raw)

    def resume(self, name: str) -> Shape:
        return dict(self._client.schedules.resume(name).raw)

    def delete(self, name: str) -> Shape:
        return dict(self._client.schedules.delete(name).raw)


class HttpKeys:
    """With a key of the platform, those of the tenant that is named; else of one's own."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def create(self, spec: "KeySpec", *, platform: bool) -> Shape:
        role = None if spec.role is None else spec.role.value
        made = self._client.keys.create(
            spec.name, role=role, expires=spec.expires_s, tenant=self._of(platform=platform)
        )
        return dict(made.raw)

    def list(self, *, platform: bool) -> list[Shape]:
        found = self._client.keys.list(tenant=self._of(platform=platform))
        return [dict(one.raw) for one in found]

    def revoke(self, name: str, *, platform: bool) -> Shape:
        return dict(self._client.keys.revoke(name, tenant=self._of(platform=platform)).raw)

    def _of(self, *, platform: bool) -> str | None:
        """Return the tenant to name to the API; None: whom the key speaks for."""
        who = self._client.who()
        is_root = who.role == Role.ROOT
        if not platform:
            return (tenancy.named() or DEFAULT_TENANT) if is_root else None
        tenancy.refuse_typed("a root key is of the platform")
        if not is_root:
            raise ForbiddenError(
                f"this key has the role {who.role}; this needs a key of the platform (root)"
            )
        return None


class HttpTenants:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def create(self, spec: "TenantSpec") -> Shape:
        body: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.tenants.save(body).raw)

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.tenants.list()]

    def show(self, name: str) -> Shape:
        return dict(self._client.tenants.get(name).raw)

    def change(self, name: str, wanted: "TenantChange") -> Shape:
        body: dict[str, Any] = wanted.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.tenants.change(name, body).raw)

    def archive(self, name: str, *, undo: bool) -> Shape:
        tenants = self._client.tenants
        return dict((tenants.unarchive(name) if undo else tenants.archive(name)).raw)


class HttpRetention:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def show(self) -> Shape:
        return dict(self._client.retention.get().raw)

    def set(self, changes: Mapping[str, Any]) -> Shape:
        return dict(self._client.retention.set(**changes).raw)
