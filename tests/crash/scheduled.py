"""The story of a schedule: its one time is due, and makes one run, whoever dies meanwhile."""

from collections.abc import Callable

from crash.acts import words
from crash.harness import Engine
from leasehold.domain.schedules import ScheduleSpec
from leasehold.domain.specs import parse
from leasehold.orchestrator import scheduling
from leasehold.store import schedules


def scheduled(provider: str) -> Callable[[Engine], bool]:
    """A schedule of one moment that is due; its run is carried to its end."""

    def act(engine: Engine) -> bool:
        with engine.database.read() as tx:
            there = schedules.page(tx, tenant_id="default")
            runs = tx.all("SELECT status, idempotency_key FROM runs")
        if not there:
            _make(engine, provider)
            return False
        if there[0]["status"] != "done":
            assert not runs, "the run and the schedule's next time are one commit"
            return False
        (run,) = runs
        assert run["idempotency_key"].startswith(f"schedule:{there[0]['id']}:")
        if not engine.quiet():
            return False
        assert run["status"] == "succeeded", run
        assert engine.cell.starts("run") == 1
        assert there[0]["fired"] == 1
        return True

    return act


def _make(engine: Engine, provider: str) -> None:
    argv = words(provider, engine.cell.mark("run"))
    spec = parse(
        ScheduleSpec,
        {
            "name": "once",
            "at": "2999-01-01T00:00",
            "environment": f"{provider}.ephemeral",
            "run": {"commands": [{"argv": argv}]},
        },
    )
    with engine.database.write("door.schedule") as tx:
        scheduling.create(tx, spec, tenant_id="default", actor="test")
        tx.run("UPDATE schedules SET next_at = {now}")
