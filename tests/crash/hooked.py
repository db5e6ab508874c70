"""The story of a webhook: the end of a run is told, under one id, whoever dies meanwhile."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta

from crash.acts import words
from crash.harness import Engine
from leasehold.domain import webhooks as hooks
from leasehold.maintenance import deliveries
from leasehold.orchestrator import hooking
from leasehold.outbound.posting import Reply
from leasehold.store import webhooks
from leasehold.vault.keys import Keys, make_file

HOLD = timedelta(seconds=0.2)
"""So long a courier that was killed is waited for."""


def hooked(provider: str) -> Callable[[Engine], bool]:
    """A run ends; its end is told to a receiver that fails the first time."""

    def act(engine: Engine) -> bool:
        keys_path = engine.cell.path / "secret-keys"
        make_file(keys_path)
        keys = Keys.load(keys_path)
        with engine.database.read() as tx:
            there = webhooks.page(tx, tenant_id="default")
        if not there:
            _make(engine, keys)
            return False
        hook = there[0]
        engine.submit(
            "run",
            [words(provider, engine.cell.mark("run"))],
            environment=f"{provider}.ephemeral",
        )
        if not (engine.over("run") and engine.quiet()):
            _nobody_is_told_before_the_end(engine)
            return False
        deliveries.run_once(
            engine.context,
            post=_receiver(engine),
            secrets=lambda row, now_us: hooking.secrets_of(keys, row, now_us=now_us),
            room=2,
            hold=HOLD,
        )
        with engine.database.write("door.hurry") as tx:
            # The backoff after a failure is none of this story's.
            tx.run(
                "UPDATE webhook_deliveries SET next_at = {now}"
                " WHERE last_error IS NOT NULL AND next_at > {now} + 1000000"
            )
        return _is_told(engine, hook["id"])

    return act


def _make(engine: Engine, keys: Keys) -> None:
    spec = hooks.WebhookSpec(name="hook", url="https://example.org/")
    with engine.database.write("door.webhook") as tx:
        hooking.create(tx, keys, spec, tenant_id="default", actor="test")


def _receiver(engine: Engine) -> deliveries.Post:
    """Answer 500 to the first message that comes, 200 to all others; remember them all."""

    def post(_url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        with (engine.cell.path / "told").open("a") as file:
            file.write(json.dumps([headers["webhook-id"], body.decode()]) + "\n")
        if engine.cell.once("bad-receiver"):
            return Reply(500, "answered 500")
        return Reply(200)

    return post


def _nobody_is_told_before_the_end(engine: Engine) -> None:
    with engine.database.read() as tx:
        owed = tx.value(
            "SELECT count(*) FROM webhook_deliveries d JOIN runs r ON r.id = d.run_id"
            " WHERE r.finished_at IS NULL"
        )
    assert not owed


def _is_told(engine: Engine, webhook_id: str) -> bool:
    run = engine.run("run")
    assert run is not None
    with engine.database.read() as tx:
        (row,) = webhooks.deliveries(tx, webhook_id, limit=9)
    if row["status"] != "delivered":
        return False
    lines = (engine.cell.path / "told").read_text().splitlines()
    told = {tuple(json.loads(line)) for line in lines}
    assert len(told) == 1, "each time the same, under the same id"
    ((message_id, body),) = told
    assert message_id == row["id"] == f"{webhook_id}.{run['id']}"
    assert json.loads(body)["data"]["run"]["status"] == run["status"] == "succeeded"
    assert len(lines) >= 2, "it failed the first time"
    return True
