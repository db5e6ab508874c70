"""
The people: they submit, cancel, retry and resume, hold leases, change and drain things.

What a person does stands in a list that was drawn before, and a client that dies goes on where
it was: so a submit is repeated under the same key until its answer has come.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any, Final

from leasehold.domain.after import After, Outcome
from leasehold.domain.lifecycle import RUN_ENDS, EndKind, LeaseStatus, RunStatus
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.orchestrator import ending, holding, submit
from leasehold.orchestrator.jobs import Context
from leasehold.simulation.fleet import SimApp, World
from leasehold.simulation.planted import ACCOUNT, LOGIN, NAMES, OWN
from leasehold.simulation.scheduler import Host, Process
from leasehold.store import environments, leases, operator, runs
from leasehold.store.database import Row, Tx
from leasehold.vault import keeping

ENVIRONMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "box": {"provider": "box"},
    "box-reuse": {
        "provider": "box",
        "policy": "reuse_by_environment",
        "config": {"token": {"secret": ACCOUNT}},
    },
    "box-keep": {
        "provider": "box",
        "policy": "retain_on_failure",
        "env": {"LOGIN": {"secret": LOGIN}},
    },
    "cloud": {"provider": "cloud", "limits": {"max_concurrent": 3}},
    "cloud-reuse": {
        "provider": "cloud",
        "policy": "reuse_by_environment",
        "config": {"token": {"secret": ACCOUNT}},
        "env": {"LOGIN": {"secret": LOGIN}},
    },
    "cloud-work": {
        "provider": "cloud",
        "policy": "reuse_by_workspace",
        "config": {"token": {"secret": ACCOUNT}},
    },
}
DEEDS: Final = {
    "submit": 14,
    "follow_on": 4,
    "cancel": 3,
    "retry": 2,
    "resume": 2,
    "hold": 1,
    "use": 3,
    "give_back": 1,
    "retain": 1,
    "follow": 1,
    "change": 0.5,
    "rotate": 1,
}


def make_environments(app: SimApp) -> None:
    """Save every secret and every environment; for a person's process."""
    for name in NAMES:
        with app.database.write("door.secret") as tx:
            plant(tx, app.world, name)
    for name, fields in ENVIRONMENTS.items():
        spec = parse(EnvironmentSpec, {"name": name, **fields})
        with app.database.write("door.environment") as tx:
            submit.ensure_environment(tx, spec, tenant_id="default")


def plant(tx: Tx, world: World, name: str) -> None:
    """Give a secret a new value."""
    value = world.planted.draw(name)
    keeping.put(tx, world.planted.keys, tenant_id="default", name=name, value=value)


def draw_command(rng: Random, *, longest_s: float) -> list[str]:
    """Draw one command's words."""
    length = f"{longest_s * rng.random() ** 2:.3f}"
    return rng.choice(
        (
            ["true"],
            ["echo", "well", "done"],
            ["sleep", length, "then", "echo", "done"],
            ["echo", "a", "then", "sleep", length, "then", "err", "b", "then", "echo", "c"],
            ["fill", str(rng.choice((10, 5_000, 300_000, 1_500_000)))],
            ["sleep", length, "then", "exit", "3"],
            ["sleep", length],
            ["env", "then", "sleep", length, "then", "env", "base64"],
            ["sleep", length, "then", "fill", "262100", "then", "env"],
            rng.choice((["false"], ["signal", "9"], ["no-such-command"])),
        )
    )


_IN_TURN: Final = 7


def draw_run(rng: Random, *, longest_s: float) -> dict[str, Any]:
    """Draw what a run is to do."""
    count = rng.choice((1, 1, 1, 2, 3))
    body: dict[str, Any] = {
        "commands": [{"argv": draw_command(rng, longest_s=longest_s)} for _ in range(count)],
        "retries": rng.choice((0, 0, 1, 2)),
        "idempotent": rng.random() < 0.3,  # noqa: PLR2004
        "max_infra_attempts": rng.choice((2, 3, 5)),
        "priority": rng.randrange(10),
        "grace_s": 1.0,
        "workspace": rng.choice(("a", "b")),
    }
    if rng.random() < 0.4:  # noqa: PLR2004
        body["env"] = {"OWN": {"secret": OWN}, "PLAIN": "1"}
    for name, chance, low, high in (
        ("timeout_s", 0.2, 0.5, 20),
        ("deadline_s", 0.1, 5, 60),
        ("queue_timeout_s", 0.1, 2, 30),
        ("start_timeout_s", 0.1, 2, 30),
    ):
        if rng.random() < chance:
            body[name] = rng.uniform(low, high)
    if body["priority"] < _IN_TURN:
        # Runs of one workspace take turns; most are to meet each other.
        body["workspace"] = None
    return body


def _takes_runs(lease: Row) -> bool:
    """Return whether a run may name this lease: it is held, or may be looked into."""
    kept = {LeaseStatus.RETAINED, LeaseStatus.IDLE}
    return lease["held_until"] is not None or lease["status"] in kept


class Person:
    """One client, and what it still wants to do."""

    def __init__(
        self, world: World, app: SimApp, name: str, *, deeds: int, within_s: float
    ) -> None:
        self._world, self._app, self.name = world, app, name
        self._rng = Random(world.scheduler.rng.random())  # noqa: S311  a simulation
        names = self._rng.choices(list(DEEDS), list(DEEDS.values()), k=deeds)
        longest_s = self._rng.choice((1.0, 10.0, 90.0, 90.0))
        self._deeds = [(name, draw_run(self._rng, longest_s=longest_s)) for name in names]
        self._pause_s = within_s / max(1, deeds)
        self._done = 0
        self.submitted: dict[str, str] = {}
        """Key → id of the run that was accepted under it."""

        self.problems: list[str] = []

    @property
    def is_done(self) -> bool:
        return self._done == len(self._deeds)

    def begin(self) -> None:
        """Start the client; it comes back if it dies."""
        scheduler = self._world.scheduler
        process: Process = scheduler.process(self.name, Host(self.name, up_s=1000.0))
        process.on_death.append(lambda: scheduler.call(1.0, self.begin))
        scheduler.spawn(process, "", self._main)

    def _main(self) -> None:
        scheduler = self._world.scheduler
        context = self._app.context(publish=self._world.broker.publish)
        while not self.is_done:
            scheduler.sleep(self._rng.expovariate(1 / self._pause_s))
            name, body = self._deeds[self._done]
            deed: Callable[[Tx, Context, dict[str, Any]], None] = getattr(self, f"_{name}")
            while True:
                try:
                    with self._app.database.write(f"door.{name}") as tx:
                        deed(tx, context, body)
                except StoreUnavailableError:
                    scheduler.sleep(self._rng.uniform(0.1, 2.0))
                except LeaseholdError as error:
                    self._world.planted.look("an answer", error)
                    scheduler.trace(f"{name}: {error}")
                    break
                else:
                    break
            self._done += 1

    # Deeds: each in one transaction, as at a door.

    def _submit(self, tx: Tx, context: Context, body: dict[str, Any]) -> None:
        key = f"{self.name}-{self._done}"
        environment = list(ENVIRONMENTS)[sum(map(ord, repr(body))) % len(ENVIRONMENTS)]
        request = submit.Request(spec=parse(RunSpec, body), environment=environment, key=key)
        row, _ = submit.submit(tx, context, request)
        tx.after_commit.append(lambda: self._accepted(key, row["id"]))

    def _follow_on(self, tx: Tx, context: Context, body: dict[str, Any]) -> None:
        """Submit a run that starts after others, which may be over, parked or waiting too."""
        there = runs.page(tx, tenant_id="default", limit=20)
        chosen = self._rng.sample(there, min(len(there), self._rng.choice((1, 1, 2, 3))))
        outcomes = self._rng.choices(list(Outcome), (3, 2, 2), k=len(chosen))
        after = [
            After(run=row["id"], outcome=outcome)
            for row, outcome in zip(chosen, outcomes, strict=True)
        ]
        request = submit.Request(
            spec=parse(RunSpec, body),
            environment="box",
            after=tuple(after),
            key=f"{self.name}-{self._done}",
        )
        submit.submit(tx, context, request)

    def _accepted(self, key: str, run_id: str) -> None:
        if self.submitted.setdefault(key, run_id) != run_id:
            self.problems.append(f"P1 key {key} gave two runs: {run_id}")

    def _cancel(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        if run := self._any_run(tx, lambda r: r["status"] not in RUN_ENDS):
            ending.request_end(tx, context, run["id"], EndKind.CANCEL, actor=self.name)

    def _retry(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        if run := self._any_run(tx, lambda r: r["status"] in RUN_ENDS):
            submit.retry(tx, context, run)

    def _resume(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        if run := self._any_run(tx, lambda r: r["status"] == RunStatus.PARKED):
            submit.resume(tx, context, run["id"])

    def _follow(self, tx: Tx, _context: Context, _: dict[str, Any]) -> None:
        if run := self._any_run(tx, lambda r: r["status"] == RunStatus.RUNNING):
            operator.follow(tx, run["id"], for_us=10_000_000)

    def _hold(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        environment = environments.get(
            tx, self._rng.choice(("box", "cloud")), tenant_id="default"
        )
        holding.create(
            tx,
            context,
            environment,
            hold_for=timedelta(seconds=20),
            version="1",
            key=f"{self.name}-{self._done}",
        )

    def _use(self, tx: Tx, context: Context, body: dict[str, Any]) -> None:
        if lease := self._any_lease(tx, _takes_runs):
            request = submit.Request(
                spec=parse(RunSpec, body),
                lease_id=lease["id"],
                visit=lease["held_until"] is None,
                key=f"{self.name}-{self._done}",
            )
            submit.submit(tx, context, request)

    def _give_back(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        if lease := self._any_lease(tx, lambda row: row["status"] != LeaseStatus.ACTIVE):
            holding.give_back(tx, context, lease["id"], actor=self.name)

    def _retain(self, tx: Tx, context: Context, _: dict[str, Any]) -> None:
        if lease := self._any_lease(tx, lambda _: True):
            holding.retain(tx, context, lease["id"])

    def _change(self, tx: Tx, _context: Context, _: dict[str, Any]) -> None:
        name = self._rng.choice(("box-reuse", "cloud-reuse"))
        row = environments.get(tx, name, tenant_id="default")
        fields = {**ENVIRONMENTS[name], "name": name}
        image = {"image": self._rng.choice(("one", "two"))}
        fields["config"] = {**fields.get("config", {}), **image}
        spec = parse(EnvironmentSpec, fields)
        environments.change_spec(tx, row["id"], spec.model_dump(mode="json"))

    def _rotate(self, tx: Tx, _context: Context, _: dict[str, Any]) -> None:
        plant(tx, self._world, self._rng.choice(NAMES))

    def _any_run(self, tx: Tx, fits: Callable[[Row], bool]) -> Row | None:
        found = [row for row in runs.page(tx, tenant_id="default") if fits(row)]
        return self._rng.choice(found) if found else None

    def _any_lease(self, tx: Tx, fits: Callable[[Row], bool]) -> Row | None:
        rows = leases.page(tx, tenant_id="default", live=True)
        found = [row for row in rows if fits(row)]
        return self._rng.choice(found) if found else None
