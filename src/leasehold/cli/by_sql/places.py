"""Leases, environments, and who serves them, by SQL."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from leasehold.cli.door import Door
from leasehold.cli.naming import the_host
from leasehold.cli.ports import Shape
from leasehold.store import environments, fleet, hosts, leases, radius, views
from leasehold.store.database import Row, Tx

if TYPE_CHECKING:
    from leasehold.domain.specs import EnvironmentSpec
    from leasehold.orchestrator.changing import EnvironmentChange
    from leasehold.orchestrator.probing import DraftSpec


class SqlLeases:
    def __init__(self, door: Door) -> None:
        self._door = door

    def list(self, *, statuses: Sequence[str], live: bool, limit: int) -> list[Shape]:
        rows = self._door.read(
            lambda tx: views.lease_rows(
                tx, tenant_id=self._door.tenant, statuses=statuses, live=live, limit=limit
            )
        )
        return [views.lease_view(row) for row in rows]

    def show(self, lease_id: str) -> Shape:
        tenant = self._door.tenant
        return self._door.read(lambda tx: views.whole_lease(tx, lease_id, tenant_id=tenant))

    def create(self, environment: str, *, hold_for: timedelta, key: str | None) -> Shape:
        from leasehold.ids import new_id
        from leasehold.orchestrator import holding

        request = holding.Request(
            environment=environment,
            hold_for=hold_for,
            tenant_id=self._door.tenant,
            # With a key of our own it may be asked again when an answer was lost.
            key=key or f"cli-{new_id()}",
            actor="cli",
        )
        lease, _ = self._door.write(
            "lease.create", lambda tx: holding.ask(tx, self._door.context, request)
        )
        return self.show(lease["id"])

    def give_back(self, lease_id: str) -> Shape:
        from leasehold.orchestrator import holding

        def work(tx: Tx) -> Row:
            leases.get(tx, lease_id, tenant_id=self._door.tenant)
            return holding.give_back(tx, self._door.context, lease_id, actor="cli")

        self._door.write("lease.give_back", work)
        return self.show(lease_id)

    def retain(self, lease_id: str) -> Shape:
        from leasehold.orchestrator import holding

        def work(tx: Tx) -> Row:
            leases.get(tx, lease_id, tenant_id=self._door.tenant)
            return holding.retain(tx, self._door.context, lease_id, actor="cli")

        self._door.write("lease.retain", work)
        return self.show(lease_id)


class SqlEnvironments:
    def __init__(self, door: Door) -> None:
        self._door = door

    def list(self) -> list[Shape]:
        rows = self._door.read(lambda tx: environments.page(tx, tenant_id=self._door.tenant))
        return [views.environment_view(row) for row in rows]

    def show(self, name: str) -> Shape:
        def work(tx: Tx) -> Shape:
            row = environments.get(tx, name, tenant_id=self._door.tenant)
            counts = radius.blast_radius(tx, row["id"])
            return views.environment_view(row) | {
                "unfinished_runs": counts["runs"],
                "live_leases": counts["leases"],
            }

        return self._door.read(work)

    def create(self, spec: "EnvironmentSpec", *, wait_s: float, unchecked: bool) -> Shape:
        from leasehold.orchestrator import saving, vetting

        tenant = self._door.tenant
        vetted = vetting.vet(
            self._door.context,
            spec,
            tenant_id=tenant,
            wait=timedelta(seconds=wait_s),
            unchecked=unchecked,
            first=lambda tx: saving.check_new(tx, spec.name, tenant_id=tenant),
        )
        row = self._door.write(
            "environment.create",
            lambda tx: saving.create(
                tx, spec, tenant_id=tenant, actor="cli", vetted=vetted.stored
            ),
            repeatable=False,
        )
        return views.environment_view(row) | vetted.answer()

    def ensure(self, spec: "EnvironmentSpec") -> Shape:
        from leasehold.orchestrator import submit

        tenant = self._door.tenant
        row = self._door.write(
            "environment", lambda tx: submit.ensure_environment(tx, spec, tenant_id=tenant)
        )
        return {"name": row["name"], "provider": row["provider"]}

    def change(
        self, name: str, wanted: "EnvironmentChange", *, wait_s: float, unchecked: bool
    ) -> Shape:
        from leasehold.orchestrator import changing, vetting

        tenant = self._door.tenant
        spec = self._door.read(lambda tx: changing.to_vet(tx, name, wanted, tenant_id=tenant))
        vetted = None
        if spec is not None:
            vetted = vetting.vet(
                self._door.context,
                spec,
                tenant_id=tenant,
                wait=timedelta(seconds=wait_s),
                unchecked=unchecked,
            )
        row, changed = self._door.write(
            "environment.change",
            lambda tx: changing.change(
                tx, name, wanted, tenant_id=tenant, actor="cli", vetted=vetted
            ),
            repeatable=False,
        )
        more = vetted.answer() if vetted is not None else {}
        return views.environment_view(row) | {"changed": changed} | more

    def probe(self, name: str | None, draft: "DraftSpec | None", *, wait_s: float) -> Shape:
        from leasehold.cli.by_sql import probing

        return probing.probe(self._door, name, draft, wait_s=wait_s)

    def archive(self, name: str, *, undo: bool) -> Shape:
        from leasehold.orchestrator import archiving

        move: Callable[..., Row] = archiving.take_up if undo else archiving.archive
        row = self._door.write(
            "environment.archive",
            lambda tx: move(tx, name, tenant_id=self._door.tenant, actor="cli"),
        )
        return views.environment_view(row)

    def radius(self, name: str) -> Shape:
        def work(tx: Tx) -> Shape:
            row = environments.get(tx, name, tenant_id=self._door.tenant)
            return {"name": row["name"], "deleted": False, **radius.in_detail(tx, row["id"])}

        return self._door.read(work)

    def delete(self, name: str, *, force: bool) -> Shape:
        from leasehold.orchestrator import archiving

        tenant, consent = self._door.tenant, None if force else "--yes"
        row = self._door.write(
            "environment.delete",
            lambda tx: archiving.delete(
                tx, name, tenant_id=tenant, actor="cli", consent=consent
            ),
            repeatable=False,
        )
        counts = {"unfinished_runs": row["runs"], "live_leases": row["leases"]}
        return {"id": row["id"], "name": row["name"], "deleted": True, **counts}


class SqlFleet:
    def __init__(self, door: Door) -> None:
        self._door = door

    def providers(self) -> list[Shape]:
        return self._door.read(fleet.providers)

    def provider(self, key: str) -> Shape:
        return self._door.read(lambda tx: fleet.provider(tx, key))

    def workers(self, *, gone: bool) -> list[Shape]:
        return self._door.read(lambda tx: fleet.workers(tx, all_of_them=gone))

    def hosts(self) -> list[Shape]:
        return self._door.read(fleet.hosts)

    def host_of(self, text: str) -> str:
        """
        Return the id of the host that `text` names: its name, its id, or one of its workers.

        Raises:
            NotFoundError: There is none, or several.
        """

        def work(tx: Tx) -> Sequence[str]:
            rows = hosts.hosts(tx)
            named = [row["id"] for row in rows if row["name"] == text]
            workers = {row["id"]: row["host_id"] for row in hosts.workers(tx, all_of_them=True)}
            by_worker = [workers[i] for i in views.ids_like(tx, "worker", text) if i in workers]
            return sorted({*named, *views.ids_like(tx, "host", text), *by_worker})

        return the_host(text, self._door.read(work))

    def drain(self, host_id: str) -> Shape:
        from leasehold.orchestrator import forgetting

        return self._door.write(
            "host.drain", lambda tx: forgetting.drain(tx, host_id, actor="cli")
        )

    def forget(self, host_id: str, *, force: bool) -> Shape:
        from leasehold.orchestrator import forgetting

        consent = None if force else "--yes"
        shape, ended = self._door.write(
            "host.forget",
            lambda tx: forgetting.forget(
                tx, self._door.context, host_id, actor="cli", consent=consent
            ),
            repeatable=False,
        )
        return shape | {"forgotten": True, "leases_ended": ended}
