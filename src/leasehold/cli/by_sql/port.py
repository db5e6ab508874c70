"""The way by SQL: a home or a deployment's database, with the stack that it may need."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from leasehold.cli import door as doors
from leasehold.cli.by_sql.places import SqlEnvironments, SqlFleet, SqlLeases
from leasehold.cli.by_sql.rights import (
    SqlKeys,
    SqlRetention,
    SqlSchedules,
    SqlSecrets,
    SqlTenants,
)
from leasehold.cli.by_sql.runs import SqlRuns
from leasehold.cli.by_sql.telling import SqlSelections, SqlWebhooks
from leasehold.cli.door import Door
from leasehold.cli.ports import Shape
from leasehold.settings import Settings

if TYPE_CHECKING:
    from leasehold.cli.footing import Footing


class SqlPort:
    """A database, opened for one command."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.runs = SqlRuns(door)
        self.leases = SqlLeases(door)
        self.environments = SqlEnvironments(door)
        self.schedules = SqlSchedules(door)
        self.selections = SqlSelections(door)
        self.webhooks = SqlWebhooks(door)
        self.secrets = SqlSecrets(door)
        self.keys = SqlKeys(door)
        self.tenants = SqlTenants(door)
        self.fleet = SqlFleet(door)
        self.retention = SqlRetention(door)

    @property
    def tenant(self) -> str:
        return self.door.tenant

    def resolve(self, noun: str, text: str) -> str:
        return self.door.resolve(noun, text)

    def explain(self, text: str) -> Shape:
        from dataclasses import asdict

        from leasehold.orchestrator import explaining

        door = self.door
        return asdict(
            door.read(
                lambda tx: explaining.anything(tx, door.context, text, tenant_id=door.tenant)
            )
        )

    def activity(
        self,
        *,
        platform: bool,
        actor: str | None,
        noun: str | None,
        since_us: int | None,
        until_us: int | None,
        limit: int,
    ) -> Sequence[Shape]:
        from leasehold.ids import PLATFORM
        from leasehold.store import activity

        owner = PLATFORM if platform else self.tenant
        rows = self.door.read(
            lambda tx: activity.page(
                tx,
                tenant_id=owner,
                actor=actor,
                noun=noun,
                since_us=since_us,
                until_us=until_us,
                limit=limit,
            )
        )
        return [activity.activity_view(row) for row in rows]

    def now_us(self) -> int:
        return self.door.read(lambda tx: tx.now())

    def is_served(self) -> bool:
        from leasehold.cli import footing

        return footing.is_served(self.door.settings)

    def keep(self, file: BinaryIO, *, digest: str, size: int) -> None:
        from leasehold.orchestrator import storing

        storing.keep(self.door.context, self.tenant, file, digest=digest, size=size)

    def bring_home(self, run_id: str, home: Path) -> int:
        from leasehold.blobs import Blobs
        from leasehold.cli import carrying
        from leasehold.store import artifacts

        lines = self.door.read(
            lambda tx: artifacts.of_run(tx, run_id, kinds=("changed", "deleted"))
        )
        blobs = Blobs(self.door.settings.store_address)
        return carrying.bring_home(
            home, lines, lambda digest, file: blobs.fetch(self.tenant, digest, file)
        )

    def __enter__(self) -> Self:
        self.door.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.door.__exit__()


class SqlWay:
    """Opens what the settings say."""

    @cached_property
    def settings(self) -> Settings:
        return doors.settings()

    def open(self) -> SqlPort:
        return SqlPort(Door(self.settings))

    def need_stack(self, what: str) -> None:
        from leasehold.cli import footing

        footing.need_stack(self.settings, what)

    def footing(self) -> "Footing":
        from leasehold.cli.footing import Footing

        return Footing(self.settings)
