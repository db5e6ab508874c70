"""
What really happens: sandboxes, the commands in them, and everything that was ever done.

This is the other witness. It keeps the contract of a provider (fences, claims, tombstones,
times to live) without any process, and it remembers each start and each removal for the
checks, which compare them with what SQL says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leasehold.errors import (
    CapacityError,
    ExecutionUnknownError,
    SandboxGoneError,
    StaleFenceError,
    UnavailableError,
)
from leasehold.provider import contract as c
from leasehold.provider.fake_commands import seen, stamp


@dataclass(slots=True, eq=False)
class Execution:
    """A claim: a command that was started, or a tombstone."""

    id: str
    box: "Box"
    plan: Mapping[str, Any] | None
    """None: a tombstone."""

    end: dict[str, Any] | None = None
    lost: bool = False
    """Its record is gone with a reboot: nobody can say how it ended."""

    def now(self, at: float) -> tuple[bytes, bytes, c.Exit | None]:
        assert self.plan is not None
        return seen(self.plan, self.end, at)

    def runs(self, at: float) -> bool:
        """Return whether anything of it runs."""
        return (
            self.plan is not None
            and not self.lost
            and self.box.lives(at)
            and self.now(at)[2] is None
        )


@dataclass(slots=True, eq=False)
class Box:
    """One sandbox, of one incarnation."""

    lease_id: str
    number: int
    deployment: str
    incarnation: str
    host: str | None
    made_at: float
    deadline: float
    fence: int
    paused: bool = False
    gone: bool = False
    executions: dict[str, Execution] = field(default_factory=dict)

    def lives(self, at: float) -> bool:
        return not self.gone and at < self.deadline

    def install(self, fence: int) -> None:
        if fence < self.fence:
            raise StaleFenceError(f"fence {fence} is stale: {self.fence} is installed")
        self.fence = fence


class Sandboxes:
    """All sandboxes of one provider, on all hosts."""

    def __init__(self, key: str, *, now: Callable[[], float]) -> None:
        self.key = key
        self._now = now
        self.boxes: dict[str, Box] = {}
        """Lease id → the sandbox that is there now."""

        self.past: list[Box] = []
        self.destroyed: dict[str, float] = {}
        """Lease id → when its destruction was last asked for."""

        self.spared: set[str] = set()
        """Incarnations that were there when another one of their lease was to be destroyed."""

        self.started: list[Execution] = []
        self.capacity = 1000
        self.on_create: Callable[[Box], None] = lambda _box: None
        self.on_start: Callable[[Execution], None] = lambda _execution: None
        self.on_remove: Callable[[Box], None] = lambda _box: None
        self._made = 0

    # What happens to sandboxes by themselves.

    def living(self) -> list[Box]:
        """Return the sandboxes that are there now."""
        for box in list(self.boxes.values()):
            if not box.lives(self._now()):
                self._bury(box)
        return list(self.boxes.values())

    def lose(self, box: Box) -> None:
        """Let a sandbox vanish, as a machine does that burns down."""
        self._bury(box)

    def reboot(self, host: str) -> None:
        """End every command on a host; no record says how."""
        for box in self.living():
            if box.host == host:
                for execution in box.executions.values():
                    if execution.runs(self._now()):
                        execution.end = {"at": self._now(), "cause": c.ExitCause.SIGNALLED}
                        execution.lost = True

    def _bury(self, box: Box) -> None:
        at = min(self._now(), box.deadline)
        for execution in box.executions.values():
            if execution.plan is not None and execution.now(at)[2] is None:
                execution.end = {"at": at, "cause": c.ExitCause.SIGNALLED}
                execution.lost = True
        box.gone = True
        self.boxes.pop(box.lease_id, None)
        self.past.append(box)

    # What the provider does.

    def find(
        self, lease_id: str, handle: Mapping[str, Any] | None = None, *, host: str | None
    ) -> Box:
        """
        Return the sandbox of a lease, of the incarnation that the handle names.

        Raises:
            SandboxGoneError: It is not there, or not reached from this host.
        """
        box = self.boxes.get(lease_id)
        wanted = (handle or {}).get("incarnation")
        if (
            box is None
            or not box.lives(self._now())
            or box.host != host
            or wanted not in {None, box.incarnation}
        ):
            raise SandboxGoneError(f"sandbox of lease {lease_id} is gone")
        return box

    def acquire(
        self,
        lease: c.LeaseRef,
        known: Mapping[str, Any] | None,
        *,
        ttl_s: float,
        fence: int,
        host: str | None,
    ) -> tuple[Box, c.Acquired]:
        """Resume, adopt or create."""
        self.living()
        if known is None and lease.id not in self.boxes:
            if len(self.boxes) >= self.capacity:
                raise CapacityError("all room is taken", retry_after_s=1.0)
            self._made += 1
            now = self._now()
            box = Box(
                lease_id=lease.id,
                number=lease.number,
                deployment=lease.deployment,
                incarnation=f"i{self._made}",
                host=host,
                made_at=now,
                deadline=now + ttl_s,
                fence=fence,
            )
            self.boxes[lease.id] = box
            self.on_create(box)
            return box, c.Acquired.CREATED
        box = self.find(lease.id, known, host=host)
        box.install(fence)
        box.paused = False
        box.deadline = self._now() + ttl_s
        return box, c.Acquired.RESUMED if known is not None else c.Acquired.ADOPTED

    def start(
        self, box: Box, execution_id: str, command: c.Command, *, fence: int
    ) -> c.StartOutcome:
        box.install(fence)
        if box.paused:
            raise UnavailableError("the sandbox is suspended")
        known = box.executions.get(execution_id)
        if known is not None:
            tomb = known.plan is None
            return c.StartOutcome.CANCELLED if tomb else c.StartOutcome.ADOPTED
        execution = Execution(execution_id, box, stamp(command, self._now()))
        box.executions[execution_id] = execution
        self.started.append(execution)
        self.on_start(execution)
        return c.StartOutcome.STARTED

    def look(self, box: Box, item: c.PollItem, limit: int) -> c.Polled:
        execution = box.executions.get(item.execution_id)
        if execution is None:
            raise ExecutionUnknownError(f"no execution {item.execution_id}")
        if execution.plan is None:
            return c.Polled(execution_id=execution.id, state=c.ExecutionState.UNCLEAR)
        out, err, exit_ = execution.now(self._now())
        state = c.ExecutionState.RUNNING if exit_ is None else c.ExecutionState.EXITED
        if execution.lost:
            state, exit_ = c.ExecutionState.UNCLEAR, None
        return c.Polled(
            execution_id=execution.id,
            state=state,
            exit=exit_,
            stdout=out[item.stdout_offset : item.stdout_offset + limit],
            stderr=err[item.stderr_offset : item.stderr_offset + limit],
        )

    def end(
        self, box: Box, execution_id: str, *, fence: int, cause: c.ExitCause | None
    ) -> c.Settled:
        """Prove how an execution ended; end it if a cause is given."""
        box.install(fence)
        execution = box.executions.get(execution_id)
        if execution is None:
            box.executions[execution_id] = Execution(execution_id, box, None)
            return c.Settled(state=c.SettledState.NEVER_STARTED)
        if execution.plan is None:
            return c.Settled(state=c.SettledState.NEVER_STARTED)
        if execution.lost:
            return c.Settled(state=c.SettledState.LOST)
        exit_ = execution.now(self._now())[2]
        if exit_ is None:
            if cause is None:
                raise UnavailableError(f"execution {execution_id} runs")
            execution.end = {"at": self._now(), "cause": cause}
            exit_ = execution.now(self._now())[2]
        return c.Settled(state=c.SettledState.EXITED, exit=exit_)

    def suspend(self, box: Box, *, fence: int) -> None:
        """Keep the disk; what runs is ended."""
        box.install(fence)
        box.paused = True
        for execution in box.executions.values():
            if execution.runs(self._now()):
                execution.end = {"at": self._now(), "cause": c.ExitCause.CANCELLED}

    def destroy(self, target: c.Target, *, fence: int, host: str | None) -> None:
        """Remove a sandbox and all that runs in it; gone already is fine."""
        self.destroyed[target.lease.id] = self._now()
        try:
            box = self.find(target.lease.id, target.handle, host=host)
        except SandboxGoneError:
            other = self.boxes.get(target.lease.id)
            if other is not None and target.handle:
                self.spared.add(other.incarnation)
            return
        box.install(fence)
        self.on_remove(box)
        self._bury(box)
