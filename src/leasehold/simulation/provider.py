"""
The provider of simulated sandboxes: one kind that lives on a host, one in a cloud.

A call is sent, takes effect at one instant, and is answered; each may go wrong by itself. It
is refused; or it takes effect and the answer is lost; or it hangs until its budget is over; or
it takes effect long after its caller gave up. Whoever dies in a call does not take it back.

It talks: whatever it says, its errors and what it tells of a sandbox, has its account's token
in it. And it keeps what it is told where its users may read it, so there is no secret in that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar
from urllib.parse import quote

from leasehold.errors import (
    AuthFailedError,
    CapacityError,
    ProviderError,
    UnavailableError,
)
from leasehold.provider import contract as c
from leasehold.provider.budget import Budget
from leasehold.provider.schema import check_schema
from leasehold.provider.secrets import secret_field
from leasehold.simulation.planted import Planted
from leasehold.simulation.sandboxes import Box, Execution, Sandboxes
from leasehold.simulation.scheduler import Host, Process, Scheduler, Signal
from leasehold.simulation.weather import Weather

T = TypeVar("T")
SCHEMA: Final[c.Json] = {
    "type": "object",
    "properties": {
        "image": {"type": "string"},
        "token": secret_field("Of the account."),
    },
    "additionalProperties": False,
}


ARRIVES: Final = 0.5
"""How often a call that hangs takes effect all the same."""


@dataclass(slots=True)
class _Answer:
    value: Any = None
    error: ProviderError | None = None


class SimProvider(c.Provider):
    """What one process holds of a provider."""

    def __init__(
        self,
        world: Sandboxes,
        scheduler: Scheduler,
        weather: Weather,
        planted: Planted,
        *,
        host: Host,
        bound: bool,
    ) -> None:
        self._world, self._scheduler, self._weather = world, scheduler, weather
        self._machine, self._bound, self._planted = host, bound, planted
        self._host = host.name if bound else None
        self._watcher: Callable[[str], None] | None = None
        self._missed: set[str] = set()
        """Sandboxes that this process's last listing left out."""

    def describe(self) -> c.Info:
        capabilities = c.Capabilities(
            isolation=c.Isolation.CONTAINER,
            suspend=c.Suspend.DISK,
            native_ttl=c.NativeTtl.ABSOLUTE,
            containment=c.Containment.TREE,
            host_bound=self._bound,
            files=False,
            watch=self._bound,
        )
        return c.Info(
            key=self._world.key, version="1", capabilities=capabilities, config_schema=SCHEMA
        )

    def probe(self, config: c.Json, *, budget: Budget) -> c.Health:
        return c.Health(state=c.HealthState.HEALTHY, summary="simulated")

    def validate(self, config: c.Json, *, budget: Budget) -> c.Validation:
        return self._call("validate", config, budget, lambda: check_schema(SCHEMA, config))

    def acquire(
        self,
        lease: c.LeaseRef,
        config: c.Json,
        *,
        known: c.Handle | None,
        ttl: timedelta,
        fence: int,
        budget: Budget,
    ) -> c.Sandbox:
        def effect() -> c.Sandbox:
            if self._weather.strikes("provider.full"):
                raise CapacityError("full for now", retry_after_s=1.0)
            box, outcome = self._world.acquire(
                lease, known, ttl_s=ttl.total_seconds(), fence=fence, host=self._host
            )
            return c.Sandbox(
                sandbox_id=f"{self._world.key}://{box.lease_id}/{box.incarnation}",
                handle={"v": 1, "incarnation": box.incarnation},
                outcome=outcome,
                remote_cwd="/work",
                metadata={"url": f"https://{self._world.key}.test/{_for(config)}"},
            )

        budget.check()
        self._planted.look("a sandbox's label", lease, known, fence)
        return self._call("acquire", config, budget, effect)

    def seize(self, target: c.Target, *, fence: int, budget: Budget) -> None:
        self._call("seize", target.config, budget, lambda: self._box(target).install(fence))

    def inspect(self, target: c.Target, *, budget: Budget) -> c.Inspection:
        def effect() -> c.Inspection:
            box = self._world.boxes.get(target.lease.id)
            wanted = target.handle.get("incarnation")
            if (
                box is None
                or not box.lives(self._scheduler.now)
                or wanted not in {None, box.incarnation}
            ):
                return c.Inspection(state=c.SandboxState.GONE)
            state = c.SandboxState.PAUSED if box.paused else c.SandboxState.READY
            return c.Inspection(state=state, incarnation=box.incarnation)

        return self._call("inspect", target.config, budget, effect)

    def renew(
        self, target: c.Target, *, fence: int, ttl: timedelta, budget: Budget
    ) -> c.Renewal:
        def effect() -> c.Renewal:
            box = self._box(target)
            box.install(fence)
            box.deadline = self._scheduler.now + ttl.total_seconds()
            return c.Renewal(expires_in_s=ttl.total_seconds(), enforced_by=c.NativeTtl.ABSOLUTE)

        return self._call("renew", target.config, budget, effect)

    def release(
        self, target: c.Target, *, fence: int, mode: c.ReleaseMode, budget: Budget
    ) -> None:
        def effect() -> None:
            if mode is c.ReleaseMode.DESTROY:
                self._world.destroy(target, fence=fence, host=self._host)
            elif mode is c.ReleaseMode.SUSPEND:
                self._world.suspend(self._box(target), fence=fence)
            else:
                self._box(target).install(fence)

        self._call(f"release {mode.value}", target.config, budget, effect)

    def list_owned(
        self,
        deployment: str,
        *,
        config: c.Json,
        budget: Budget,
    ) -> Iterator[c.Owned]:
        def effect() -> list[c.Owned]:
            found = []
            for box in self._world.living():
                if box.host != self._host or box.deployment != deployment:
                    continue
                # A listing may be a moment old, and is not so for two sweeps of one process.
                missed = box.lease_id in self._missed
                if not missed and self._weather.strikes("listing.short"):
                    self._missed.add(box.lease_id)
                    continue
                self._missed.discard(box.lease_id)
                found.append(
                    c.Owned(
                        handle={"v": 1, "incarnation": box.incarnation},
                        lease_id=box.lease_id,
                        lease_number=box.number,
                        fence=box.fence,
                        age_s=self._scheduler.now - box.made_at,
                        sandbox_id=f"{self._world.key}://{box.lease_id}/{box.incarnation}",
                    )
                )
            return found

        yield from self._call("list", config, budget, effect)

    def start(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        command: c.Command,
        budget: Budget,
    ) -> c.Started:
        actor = self._scheduler.current
        shown = (target.lease, target.handle, execution_id, command.argv, command.cwd)
        self._planted.look("what a process list shows", *shown)

        def effect() -> c.Started:
            box = self._box(target)
            outcome = self._world.start(box, execution_id, command, fence=fence)
            if outcome is c.StartOutcome.STARTED and self._watcher is not None and actor:
                self._watch(actor.process, box.executions[execution_id])
            return c.Started(outcome=outcome, handle={})

        return self._call("start", target.config, budget, effect)

    def poll(
        self, items: Sequence[c.PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[c.Polled]:
        def one(item: c.PollItem) -> c.Polled:
            try:
                return self._world.look(self._box(item.target), item, limit_bytes)
            except ProviderError as error:
                said = type(error)(f"{error}{_for(item.target.config)}")
                return c.Polled(execution_id=item.execution_id, error=said)

        config = items[0].target.config if items else {}
        return self._call("poll", config, budget, lambda: [one(item) for item in items])

    def settle(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        budget: Budget,
    ) -> c.Settled:
        def effect() -> c.Settled:
            return self._world.end(self._box(target), execution_id, fence=fence, cause=None)

        return self._call("settle", target.config, budget, effect)

    def cancel(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        grace: timedelta,
        budget: Budget,
    ) -> c.Settled:
        def effect() -> c.Settled:
            cause = c.ExitCause.CANCELLED
            return self._world.end(self._box(target), execution_id, fence=fence, cause=cause)

        return self._call("cancel", target.config, budget, effect)

    def read(
        self,
        target: c.Target,
        *,
        execution_id: str,
        handle: c.Handle,
        stream: c.Stream,
        offset: int,
        limit_bytes: int,
        budget: Budget,
    ) -> c.Chunk:
        raise UnavailableError("output comes with a poll")

    def forget(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        budget: Budget,
    ) -> None:
        """Nothing to free."""

    def watch(self, callback: Callable[[str], None]) -> None:
        self._watcher = callback

    def _watch(self, process: Process, execution: Execution) -> None:
        """Tell the process that started it of its natural end."""
        scheduler, tell = self._scheduler, self._watcher
        assert tell is not None
        assert execution.plan is not None

        def ended() -> None:
            if process.alive:
                scheduler.spawn(process, "watch", lambda: tell(execution.id))

        scheduler.call(float(execution.plan["ends_after"]), ended)

    def _box(self, target: c.Target) -> Box:
        return self._world.find(target.lease.id, target.handle, host=self._host)

    def _call(self, method: str, config: c.Json, budget: Budget, effect: Callable[[], T]) -> T:
        """Send a call, wait for its answer, and meet what goes wrong with it."""
        scheduler, weather = self._scheduler, self._weather
        scheduler.die_if_dead()
        scheduler.before_wait()
        self._refuse(method, _for(config))
        answer, done = _Answer(), Signal(scheduler)
        hangs, late = weather.strikes("provider.hung"), weather.strikes("provider.late")
        slow = weather.strikes("provider.slow")

        def happen() -> None:
            try:
                answer.value = effect()
            except ProviderError as error:
                answer.error = error
            scheduler.trace(f"{self._world.key} {method}: {_said(answer)}")
            if not hangs and not late:
                scheduler.call(weather.some(0.001, 0.01), done.set)

        wait = weather.some(0.1, 20.0) if slow else weather.some(0.001, 0.05)
        if late:
            wait = budget.left_s() + weather.some(0.01, 30.0)
        if not hangs or scheduler.rng.random() < ARRIVES:
            scheduler.call(wait, happen)
        while not done.wait(min(budget.left_s(), 1.0)):
            budget.check()
        if weather.strikes("provider.answer_lost"):
            raise UnavailableError(f"the answer of {method} was lost{_for(config)}")
        if answer.error is not None:
            raise answer.error
        value: T = answer.value
        return value

    def _refuse(self, method: str, said: str) -> None:
        scheduler, weather = self._scheduler, self._weather
        if not self._bound and self._machine.cut:
            scheduler.sleep(0.5)
            raise UnavailableError("the cloud is not reached")
        if weather.strikes("provider.refused"):
            scheduler.sleep(weather.some(0.001, 1.0))
            raise UnavailableError(f"{method} was refused{said}")
        if weather.strikes("provider.denied"):
            raise AuthFailedError(f"{method} was denied{said}")


def _for(config: c.Json) -> str:
    """Say whom a call was for, as no provider should."""
    token = config.get("token")
    return f", token {token}, {quote(token, safe='')}" if isinstance(token, str) else ""


def _said(answer: _Answer) -> str:
    if answer.error is not None:
        return type(answer.error).__name__
    value = answer.value
    for name in ("outcome", "state"):
        if hasattr(value, name):
            return str(getattr(value, name).value)
    if isinstance(value, list):
        states = [getattr(item, "state", None) for item in value]
        return " ".join("?" if state is None else str(state.value) for state in states[:5])
    return "done"
