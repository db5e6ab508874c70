"""Stories of places that are tried: a question to a worker, and a probe's sandbox."""

from collections.abc import Callable
from datetime import timedelta

from crash.harness import Engine
from leasehold.domain.lifecycle import LeaseStatus
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import CheckTimeoutError
from leasehold.orchestrator import probing, vetting
from leasehold.store import config_checks, environments
from leasehold.store.database import Row

_MINUTE_US = 60_000_000


def checked(provider: str) -> Callable[[Engine], bool]:
    """A question whose asker has gone, and which is answered once, whoever dies at it."""
    spec = EnvironmentSpec(name="lab", provider=provider, config={})

    def act(engine: Engine) -> bool:
        with engine.database.read() as tx:
            rows = tx.all("SELECT * FROM config_checks WHERE until_at > {now}")
        if not rows:
            _ask(engine, spec)
            return False
        if any(row["answered_at"] is None for row in rows):
            return False
        answers = [vetting.judged(spec, _loaded(engine, row["id"])) for row in rows]
        return all(one.stored["by"] for one in answers)

    return act


def _loaded(engine: Engine, check_id: str) -> Row:
    with engine.database.read() as tx:
        row = config_checks.find(tx, check_id)
    assert row is not None
    return row


def _ask(engine: Engine, spec: EnvironmentSpec) -> None:
    try:
        vetting.vet(engine.context, spec, tenant_id="default", wait=timedelta(milliseconds=1))
    except CheckTimeoutError:
        with engine.database.write("door.patience") as tx:
            tx.run("UPDATE config_checks SET until_at = {now} + :more", more=_MINUTE_US)


def probed(provider: str) -> Callable[[Engine], bool]:
    """A probe whose asker has gone: its sandbox was there, and it is destroyed."""

    def act(engine: Engine) -> bool:
        leases = engine.leases()
        if not leases:
            with engine.database.write("door.probe") as tx:
                place = environments.get(tx, f"{provider}.ephemeral", tenant_id="default")
                probing.begin(tx, engine.context, place, actor="test")
            return False
        if not engine.quiet():
            return False
        (lease,) = leases
        assert lease["status"] == LeaseStatus.RELEASED, lease
        with engine.database.read() as tx:
            shape = probing.view(tx, lease)
        assert (shape["ok"], shape["state"]) == (True, "over"), shape
        assert engine.owned() == []
        return True

    return act
