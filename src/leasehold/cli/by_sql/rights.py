"""Secrets, schedules, keys, tenants and retention, by SQL."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from leasehold.cli import tenancy
from leasehold.cli.codes import say
from leasehold.cli.door import Door
from leasehold.cli.ports import Shape
from leasehold.errors import BadInputError
from leasehold.ids import PLATFORM
from leasehold.store import keys as key_rows
from leasehold.store import (
    retention,
    schedule_views,
    schedules,
    secret_views,
    tenants,
    views,
)
from leasehold.store.database import Row, Tx

if TYPE_CHECKING:
    from leasehold.domain.schedules import ScheduleChange, ScheduleSpec
    from leasehold.orchestrator.keys import KeySpec
    from leasehold.orchestrator.tenants import TenantChange, TenantSpec
    from leasehold.vault.keys import Keys


def keys_of(door: Door, *, make: bool) -> "Keys":
    """
    Return the keys of this deployment.

    Raises:
        BadInputError: There are none; says how to make them.
    """
    from leasehold.vault import keys

    path = door.settings.secret_keys_path
    if make and door.settings.database_url is None and keys.make_file(path):
        say(f"made {path}: whoever has it and the database can read the secrets")
    if not path.exists():
        raise BadInputError(
            f"{keys.SETTING}: there is no {path}; make it once with `(umask 077; leasehold"
            " secrets new-key > FILE)`, and give the same file to every worker host",
            field=keys.SETTING,
        )
    return keys.Keys.load(path)


class SqlSecrets:
    def __init__(self, door: Door) -> None:
        self._door = door

    def set(self, name: str, value: str) -> Shape:
        from leasehold.vault import keeping

        keys, tenant = keys_of(self._door, make=True), self._door.tenant
        version = self._door.write(
            "secrets.set",
            lambda tx: keeping.put(
                tx, keys, tenant_id=tenant, name=name, value=value, actor="cli"
            ),
            repeatable=False,
        )
        return {"name": name, "version": version}

    def list(self) -> list[Shape]:
        tenant = self._door.tenant
        return self._door.read(lambda tx: secret_views.listed(tx, tenant_id=tenant))

    def delete(self, name: str) -> Shape:
        from leasehold.vault import keeping

        tenant = self._door.tenant
        shape = self._door.write(
            "secrets.delete",
            lambda tx: keeping.delete(tx, tenant_id=tenant, name=name, actor="cli"),
            repeatable=False,
        )
        return shape | {"deleted": True}

    def rotate(self) -> Shape:
        from leasehold.vault import keeping

        keys = keys_of(self._door, make=False)
        count = keeping.rotate(self._door.app.database, keys, actor="cli")
        return {"key": keys.first, "encrypted_anew": count}


class SqlSchedules:
    def __init__(self, door: Door) -> None:
        self._door = door

    def create(self, spec: "ScheduleSpec") -> Shape:
        from leasehold.orchestrator import scheduling

        tenant = self._door.tenant
        row = self._door.write(
            "schedules.create",
            lambda tx: scheduling.create(tx, spec, tenant_id=tenant, actor="cli"),
            repeatable=False,
        )
        return schedule_views.schedule_view(row)

    def list(self) -> list[Shape]:
        rows = self._door.read(lambda tx: schedules.page(tx, tenant_id=self._door.tenant))
        return [schedule_views.schedule_view(row) for row in rows]

    def show(self, name: str, *, times: int) -> Shape:
        row = self._door.read(lambda tx: schedules.get(tx, name, tenant_id=self._door.tenant))
        return schedule_views.schedule_view(row, times=times)

    def change(self, name: str, wanted: "ScheduleChange") -> Shape:
        from leasehold.orchestrator import rescheduling

        tenant = self._door.tenant
        row, changed = self._door.write(
            "schedules.update",
            lambda tx: rescheduling.change(tx, name, wanted, tenant_id=tenant, actor="cli"),
            repeatable=False,
        )
        return schedule_views.schedule_view(row, times=5) | {"changed": changed}

    def pause(self, name: str) -> Shape:
        from leasehold.orchestrator import scheduling

        return self._changed(scheduling.pause, name)

    def resume(self, name: str) -> Shape:
        from leasehold.orchestrator import scheduling

        return self._changed(scheduling.resume, name)

    def delete(self, name: str) -> Shape:
        from leasehold.orchestrator import scheduling

        return self._changed(scheduling.delete, name)

    def _changed(self, change: Callable[..., Row], name: str) -> Shape:
        def work(tx: Tx) -> Row:
            return change(tx, name, tenant_id=self._door.tenant, actor="cli")

        row = self._door.write(f"schedules.{change.__name__}", work, repeatable=False)
        return schedule_views.schedule_view(row)


class SqlKeys:
    def __init__(self, door: Door) -> None:
        self._door = door

    def create(self, spec: "KeySpec", *, platform: bool) -> Shape:
        from leasehold.orchestrator import keys

        owner = self._owner(platform=platform)
        row, key = self._door.write(
            "keys.create",
            lambda tx: keys.create(tx, spec, tenant_id=owner, actor="cli"),
            repeatable=False,
        )
        return views.key_view(row) | {"key": key}

    def list(self, *, platform: bool) -> list[Shape]:
        owner = self._owner(platform=platform)
        rows = self._door.read(lambda tx: key_rows.page(tx, tenant_id=owner))
        return [views.key_view(row) for row in rows]

    def revoke(self, name: str, *, platform: bool) -> Shape:
        from leasehold.orchestrator import keys

        owner = self._owner(platform=platform)
        row = self._door.write(
            "keys.revoke",
            lambda tx: keys.revoke(tx, name, tenant_id=owner, actor="cli"),
            repeatable=False,
        )
        return views.key_view(row)

    def _owner(self, *, platform: bool) -> str:
        if not platform:
            return self._door.tenant
        tenancy.refuse_typed("a root key is of the platform")
        return PLATFORM


class SqlTenants:
    def __init__(self, door: Door) -> None:
        self._door = door

    def create(self, spec: "TenantSpec") -> Shape:
        from leasehold.orchestrator import tenants as moves

        return self._write("create", lambda tx: moves.create(tx, spec, actor="cli"))

    def list(self) -> list[Shape]:
        return [views.tenant_view(row) for row in self._door.read(tenants.page)]

    def show(self, name: str) -> Shape:
        row = self._door.read(lambda tx: tenants.used(tx, tenants.get(tx, name)["id"]))
        return views.tenant_view(row)

    def change(self, name: str, wanted: "TenantChange") -> Shape:
        from leasehold.orchestrator import tenants as moves

        return self._write("limits", lambda tx: moves.change(tx, name, wanted, actor="cli"))

    def archive(self, name: str, *, undo: bool) -> Shape:
        from leasehold.orchestrator import tenants as moves

        move = moves.take_up if undo else moves.archive
        return self._write("archive", lambda tx: move(tx, name, actor="cli"))

    def _write(self, name: str, work: Callable[[Tx], Row]) -> Shape:
        return self._door.write(
            f"tenants.{name}",
            lambda tx: views.tenant_view(tenants.used(tx, work(tx)["id"])),
            repeatable=False,
        )


class SqlRetention:
    def __init__(self, door: Door) -> None:
        self._door = door

    def show(self) -> Shape:
        from leasehold.orchestrator import retaining

        return retaining.view(self._door.read(lambda tx: retention.of(tx, self._door.tenant)))

    def set(self, changes: Mapping[str, Any]) -> Shape:
        from leasehold.orchestrator import retaining

        tenant, wanted = self._door.tenant, dict(changes)
        return self._door.write(
            "retention.set",
            lambda tx: retaining.view(
                retaining.change(tx, wanted, tenant_id=tenant, actor="cli")
            ),
        )
