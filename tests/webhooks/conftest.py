"""A deployment with a courier of its own, and rows for it."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.bootstrap import App
from leasehold.domain.specs import parse
from leasehold.domain.timers import Timers
from leasehold.domain.webhooks import WebhookSpec
from leasehold.maintenance import deliveries
from leasehold.orchestrator import hooking
from leasehold.orchestrator.jobs import Context
from leasehold.outbound.addresses import networks
from leasehold.outbound.posting import Poster, Reply
from leasehold.settings import Settings
from leasehold.store import moves, webhooks
from leasehold.store.database import Database, Row
from leasehold.store.runs import insert_row
from leasehold.vault.keys import Keys, make_file
from store.rows import insert_run

LOOPBACK = networks("127.0.0.0/8,::1/128")
HOLD = timedelta(seconds=60)


class Post:
    """The deployment's side: webhooks, ends of runs, a courier that is called by hand."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database, self.home = database, home
        make_file(home / "secret-keys")
        self.keys = Keys.load(home / "secret-keys")
        self.context = self.courier()
        self.real = Poster(timeout_s=5.0, allowed=LOOPBACK)

    def courier(self) -> Context:
        app = App(
            settings=Settings(home=self.home),
            database=self.database,
            timers=Timers(),
            deployment="post",
            epoch=0,
        )
        return app.context(publish=lambda _: None, worker_id="courier")

    def hook(
        self, url: str = "https://example.org/", *, tenant_id: str = "default", **spec: Any
    ) -> tuple[Row, str]:
        body = {"name": "hook", "url": url, **spec}
        with self.database.write("test") as tx:
            return hooking.create(
                tx, self.keys, parse(WebhookSpec, body), tenant_id=tenant_id, actor="test"
            )

    def end(self, status: str = "succeeded", **run: Any) -> Row:
        """End a run as the engine does: its row, its event and what is owed in one."""
        with self.database.write("test") as tx:
            row = insert_run(tx, status=status, **run)
            webhooks.owe(tx, row, status=status)
        return row

    def environment(self, name: str) -> str:
        with self.database.write("test") as tx:
            now = tx.now()
            values = {
                "id": f"e-{name}",
                "tenant_id": "default",
                "name": name,
                "status": "active",
                "provider": "fake",
                "spec": {},
                "created_at": now,
                "updated_at": now,
            }
            return str(insert_row(tx, "environments", values)["id"])

    def owed(self) -> list[Row]:
        with self.database.read() as tx:
            return tx.all("SELECT * FROM webhook_deliveries ORDER BY created_at, id")

    def shown(self, name: str = "hook") -> Row:
        with self.database.read() as tx:
            return webhooks.get(tx, name, tenant_id="default")

    def events(self) -> list[str]:
        with self.database.read() as tx:
            moves.flush(tx)
            rows = tx.all("SELECT name FROM events WHERE name LIKE 'webhook.%' ORDER BY id")
        return [row["name"] for row in rows]

    def secrets(self, row: Row, now_us: int) -> list[str]:
        return hooking.secrets_of(self.keys, row, now_us=now_us)

    def turn(
        self, post: deliveries.Post | None = None, *, room: int = 8, hold: timedelta = HOLD
    ) -> int:
        return deliveries.run_once(
            self.context, post=post or self.real, secrets=self.secrets, room=room, hold=hold
        )

    def hurry(self) -> None:
        """Let every wait be over."""
        with self.database.write("test") as tx:
            tx.run("UPDATE webhook_deliveries SET next_at = {now} WHERE next_at IS NOT NULL")
            tx.run("UPDATE webhooks SET rests_until = {now} WHERE rests_until IS NOT NULL")


class Answers:
    """A receiver in memory: one answer after the other, the last one stays."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.got: list[tuple[str, Mapping[str, str], bytes]] = []

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.got.append((url, headers, body))
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@pytest.fixture
def post(database: Database, tmp_path: Path) -> Iterator[Post]:
    yield Post(database, tmp_path)
