"""Runs, by SQL."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from leasehold.cli.by_sql.following import SqlFollower
from leasehold.cli.door import Door
from leasehold.cli.ports import Shape, Sink
from leasehold.errors import NotFoundError
from leasehold.store import artifacts, finding, runs, views
from leasehold.store.database import Row, Tx

if TYPE_CHECKING:
    from leasehold.orchestrator.extending import ExtendSpec
    from leasehold.orchestrator.submit import Request


class SqlRuns:
    def __init__(self, door: Door) -> None:
        self._door = door

    def list(
        self,
        *,
        statuses: Sequence[str],
        environment: str | None,
        labels: Mapping[str, str],
        limit: int,
    ) -> list[Shape]:
        rows = self._door.read(
            lambda tx: finding.run_rows(
                tx,
                tenant_id=self._door.tenant,
                statuses=statuses,
                environment=environment,
                labels=labels,
                limit=limit,
            )
        )
        return [views.run_line(row) for row in rows]

    def show(self, run_id: str) -> Shape:
        tenant = self._door.tenant
        return self._door.read(lambda tx: views.whole_run(tx, run_id, tenant_id=tenant))

    def submit(self, request: "Request") -> Shape:
        from leasehold.orchestrator import submit

        def work(tx: Tx) -> Shape:
            return self._line(tx, submit.submit(tx, self._door.context, request)[0])

        return self._door.write("submit", work)

    def cancel(self, run_id: str, *, why: str = "") -> Shape:
        from leasehold.domain.lifecycle import EndKind
        from leasehold.orchestrator import ending

        actor = f"cli: {why}" if why else "cli"
        self._door.write(
            "cancel",
            lambda tx: ending.request_end(
                tx, self._door.context, run_id, EndKind.CANCEL, actor=actor
            ),
        )
        return self.show(run_id)

    def retry(self, run_id: str, *, key: str) -> Shape:
        from leasehold.orchestrator import submit

        def work(tx: Tx) -> Row:
            old = runs.get(tx, run_id, tenant_id=self._door.tenant)
            return submit.retry(tx, self._door.context, old, key=key, actor="cli")[0]

        return self.show(self._door.write("retry", work)["id"])

    def resume(self, run_id: str) -> Shape:
        from leasehold.orchestrator import submit

        self._door.write(
            "resume",
            lambda tx: submit.resume(tx, self._door.context, run_id, actor="cli"),
            repeatable=False,
        )
        return self.show(run_id)

    def extend(self, run_id: str, more: "ExtendSpec") -> Shape:
        from leasehold.orchestrator import extending

        self._door.write("extend", lambda tx: extending.extend(tx, run_id, more, actor="cli"))
        return self.show(run_id)

    def artifacts(self, run_id: str) -> Sequence[Shape]:
        rows = self._door.read(lambda tx: artifacts.of_run(tx, run_id))
        return [views.artifact_view(row) for row in rows]

    def fetch(self, run_id: str, line: Shape, file: BinaryIO) -> None:
        from leasehold.blobs import Blobs

        del run_id  # the digest says it all
        blobs = Blobs(self._door.settings.store_address)
        blobs.fetch(self._door.tenant, line["sha256"], file)

    def follower(
        self, run_id: str, *, sink: Sink | None, live: bool = True, command: int | None = None
    ) -> SqlFollower:
        return SqlFollower(self._door, run_id, sink=sink, live=live, command=command)

    def debt(self, run_id: str) -> Shape:
        found: Any = self._door.read(lambda tx: views.progress(tx, run_id))
        return dict(found or {})

    @staticmethod
    def _line(tx: Tx, row: Row) -> Shape:
        shown = views.run_row(tx, row["id"])
        if shown is None:
            raise NotFoundError(f"there is no run {row['id']} any more")
        return views.run_line(shown)
