"""One sandbox on a target, as a worker sees it, and the questions that tests ask about it."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from leasehold.provider import (
    Acquired,
    Budget,
    Command,
    ExecutionState,
    Exit,
    Handle,
    LeaseRef,
    Polled,
    PollItem,
    Provider,
    ReleaseMode,
    Settled,
    Started,
    StartOutcome,
    Stream,
    Target,
)
from leasehold_ssh import make
from living import wait_for

TTL = timedelta(minutes=10)
LAST_FENCE = 10**12


def budget(seconds: float = 30) -> Budget:
    return Budget(seconds)


class Leased:
    """A lease of its own on the target that the config names."""

    def __init__(
        self, provider: Provider, config: Mapping[str, Any], lease_id: str, *, fence: int = 1
    ) -> None:
        self.provider, self.config = provider, config
        self.lease = LeaseRef(id=lease_id, number=1, deployment="tests")
        self.sandbox = provider.acquire(
            self.lease, config, known=None, ttl=TTL, fence=fence, budget=budget()
        )

    @property
    def target(self) -> Target:
        return Target(lease=self.lease, handle=self.sandbox.handle, config=self.config)

    def start(self, name: str, command: Command, *, fence: int = 1) -> Started:
        return self.provider.start(
            self.target, fence=fence, execution_id=name, command=command, budget=budget()
        )

    def shell(self, name: str, script: str, *, fence: int = 1) -> Started:
        return self.start(name, Command(argv=("sh", "-c", script)), fence=fence)

    def item(self, name: str, offset: int = 0) -> PollItem:
        return PollItem(target=self.target, execution_id=name, handle={}, stdout_offset=offset)

    def poll(self, name: str, offset: int = 0, *, within_s: float = 30) -> Polled:
        (polled,) = self.provider.poll(
            [self.item(name, offset)], limit_bytes=1 << 20, budget=budget(within_s)
        )
        return polled

    def ended(self, name: str) -> Exit:
        def look() -> Exit | None:
            return self.poll(name).exit

        exit_: Exit = wait_for(f"the end of {name}", look, within_s=60)
        return exit_

    def running(self, name: str) -> None:
        wait_for(
            f"{name} runs", lambda: self.poll(name).state is ExecutionState.RUNNING, within_s=30
        )

    def output(self, name: str) -> bytes:
        return self.provider.read(
            self.target,
            execution_id=name,
            handle={},
            stream=Stream.STDOUT,
            offset=0,
            limit_bytes=1 << 22,
            budget=budget(),
        ).data

    def cancel(self, name: str, *, fence: int = 1) -> Settled:
        return self.provider.cancel(
            self.target,
            fence=fence,
            execution_id=name,
            handle={},
            grace=timedelta(seconds=0.2),
            budget=budget(),
        )

    def destroy(self) -> None:
        self.provider.release(
            self.target, fence=LAST_FENCE, mode=ReleaseMode.DESTROY, budget=budget()
        )


class Told(NamedTuple):
    outcome: Acquired
    handle: Handle
    start: StartOutcome
    state: ExecutionState | None


def take_over(lease_id: str, config: Mapping[str, Any], name: str, fence: int) -> Told:
    """Go on with a lease in another process, knowing its id and config alone."""
    provider = make({"host_id": "host-2"})
    leased = Leased(provider, config, lease_id, fence=fence)
    provider.seize(leased.target, fence=fence, budget=budget())
    start = leased.shell(name, "echo x >>starts", fence=fence)
    told = Told(
        leased.sandbox.outcome, leased.sandbox.handle, start.outcome, leased.poll(name).state
    )
    provider.close()
    return told


def at_last(call: Callable[[], Any], kind: type[Exception], *, within_s: float = 40) -> Any:
    """Repeat a call that is refused with `kind`, as its caller would; return its answer."""

    def attempt() -> list[Any]:
        try:
            return [call()]
        except kind:
            return []

    return wait_for("the call is answered", attempt, within_s=within_s)[0]
