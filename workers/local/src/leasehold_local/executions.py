"""
Executions: start, look, settle, end. The worker's side of the supervisor's protocol.

Order of a start: fence, claim (one rename), spawn. Whether the command is started is decided by
`go` alone, which only the supervisor takes, after a last look at the fences. So:

- Killed between claim and spawn: a claim without `go`. The same `start` again spawns again.
- Two starts of one id at once: two supervisors, one `go`; the other one leaves.
- `settle`, `cancel` or `destroy` of a claim without `go` take it themselves: a tombstone. A
  supervisor that comes later finds it and leaves.
- `go` is the supervisor's and it lives: only it ends the command, told by `end` and a signal.
- `go` is the supervisor's and it is dead: what is left of the command's cgroup and session is
  killed until nothing is seen, then the record is looked for once more; none means lost.
"""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Final

from leasehold.provider import (
    Budget,
    Command,
    ConfigRejectedError,
    ExecutionUnknownError,
    Exit,
    SandboxGoneError,
    Settled,
    SettledState,
    Started,
    StartOutcome,
    Target,
    UnavailableError,
    effect,
)
from leasehold.provider.supervisor import check_command, checked_id, parse_exit

from leasehold_local import cgroups, layout, processes
from leasehold_local.layout import disk
from leasehold_local.processes import Identity, now_cs
from leasehold_local.sandboxes import Sandboxes
from leasehold_local.spawner import Spawner
from leasehold_local.watching import ExitWatch

SAFE_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_HANDLE: Final[Mapping[str, Any]] = {"v": 1}
_STUCK_CS: Final = 500
"""A supervisor that has not written its record this long after the last KILL is stuck."""

_KILL_CS: Final = 1000
_POLITE_CS: Final = 100
"""The supervisor gets this long to do the last KILL itself."""


class Executions:
    def __init__(self, sandboxes: Sandboxes, spawner: Spawner, watch: ExitWatch) -> None:
        self._sandboxes, self._spawner, self._watch = sandboxes, spawner, watch
        self._ground = sandboxes.ground

    def place(self, target: Target, execution_id: str) -> str:
        return f"{self._sandboxes.path(target.lease.id)}/ctl/x/{checked_id(execution_id)}"

    # ---- start -----------------------------------------------------------------------------

    def start(
        self, target: Target, fence: int, execution_id: str, command: Command, budget: Budget
    ) -> Started:
        """Claim the id and spawn its supervisor."""
        with disk("starting the command", self._sandboxes.path(target.lease.id)):
            return self._start(target, fence, execution_id, command, budget)

    def _start(
        self, target: Target, fence: int, execution_id: str, command: Command, budget: Budget
    ) -> Started:
        sandbox = self._sandboxes.path(target.lease.id)
        place = self.place(target, execution_id)
        check_command(command)
        budget.check()
        label = layout.check_incarnation(sandbox, target)
        spec = self._spec(sandbox, target, execution_id, command)
        layout.install_fence(sandbox, fence)
        outcome = StartOutcome.ADOPTED
        if not os.path.isdir(place):
            left = layout.seconds_left(sandbox)
            if left is not None and left <= 0:
                raise SandboxGoneError(f"the time to live of {sandbox} has ended")
            if layout.claim(sandbox, execution_id):
                outcome = StartOutcome.STARTED
        go = layout.value(f"{place}/go")
        if go is not None:
            cancelled = layout.parse_go(go) is None
            return Started(
                outcome=StartOutcome.CANCELLED if cancelled else StartOutcome.ADOPTED,
                handle=_HANDLE,
            )
        if layout.value(f"{place}/boot") != processes.boot_id():
            # Claimed before a reboot: whether it was started then, nobody knows any more.
            return Started(outcome=StartOutcome.ADOPTED, handle=_HANDLE)
        tree = self._tree_group(label.groups)
        groups = self._limit_groups(os.path.basename(sandbox), target)
        if tree is not None:
            cgroups.ensure(tree)
        memory = self._ground.memory
        spec |= {
            "fence": layout.fence_name(fence),
            "group": tree,
            "limit_groups": [
                group for group in groups if os.path.dirname(group) != _base(tree)
            ],
            "memory_group": next(
                (one for one in groups if memory and os.path.dirname(one) == memory.base), None
            ),
        }
        spawned = self._spawner.spawn(spec, command.stdin)
        if spawned.pidfd is not None:
            self._watch.add(execution_id, spawned.pidfd)
        return Started(outcome=outcome, handle=_HANDLE)

    def _tree_group(self, groups: tuple[str, ...]) -> str | None:
        """Return the sandbox's directory in the hierarchy that can kill."""
        if self._ground.tree is None:
            return None
        return next((one for one in groups if _base(one) == self._ground.tree), None)

    def _limit_groups(self, name: str, target: Target) -> list[str]:
        """Make sure that the sandbox's limits stand; a reboot takes them away."""
        return [
            limit.apply(name, value)
            for limit, value in self._ground.group_limits(target.config)
        ]

    def _spec(
        self, sandbox: str, target: Target, execution_id: str, command: Command
    ) -> dict[str, Any]:
        root, cwd, own = self._inside(sandbox, command.cwd)
        env = {"PATH": SAFE_PATH, "LANG": "C.UTF-8", **own}
        env |= {**target.config.get("env", {}), **command.env}
        timeout = command.timeout
        return {
            "id": execution_id,
            "place": self.place(target, execution_id),
            "control": f"{sandbox}/ctl",
            "root": os.fsencode(root),
            "cwd": os.fsencode(cwd),
            "argv": [os.fsencode(part) for part in command.argv],
            "env": {os.fsencode(key): os.fsencode(text) for key, text in env.items()},
            "timeout": None if timeout is None else _cs(timeout),
            "grace": _cs(command.grace),
            "cap": max(0, command.output_cap_bytes),
            "rlimits": self._ground.rlimits(target.config),
        }

    def _inside(self, sandbox: str, cwd: str | None) -> tuple[str, str, dict[str, str]]:
        """Return root, working directory and variables as the command is to see them."""
        root = os.path.realpath(sandbox)
        own = {"HOME": f"{sandbox}/home", "TMPDIR": f"{sandbox}/tmp"}  # noqa: S108 - private
        return root, _directory(sandbox, root, cwd), own

    # ---- look ------------------------------------------------------------------------------

    def record(self, place: str) -> Exit | None:
        """Return the exit record; after a loss of power it may promise too many bytes."""
        text = layout.value(f"{place}/exit")
        return None if text is None else parse_exit(text.split(" "))

    # ---- settle, cancel, destroy -----------------------------------------------------------

    def settle(self, target: Target, fence: int, execution_id: str, budget: Budget) -> Settled:
        """Find out how it ended, killing what has no supervisor any more."""
        found = self._close(target, fence, execution_id, "settle")
        if isinstance(found, Settled):
            return found
        place = self.place(target, execution_id)
        if self._supervised(found):
            if settled := self._recorded(place):
                return settled
            raise UnavailableError(f"{execution_id} runs under its supervisor")
        return self._lost(place, found, budget)

    def cancel(
        self, target: Target, fence: int, execution_id: str, grace: timedelta, budget: Budget
    ) -> Settled:
        """End it: TERM, grace, KILL; a tombstone if it never started."""
        found = self._close(target, fence, execution_id, "cancel")
        if isinstance(found, Settled):
            return found
        with disk("ending the execution", self._sandboxes.path(target.lease.id)):
            return self._end(self.place(target, execution_id), found, _cs(grace), budget)

    def end_all(self, sandbox: str, budget: Budget) -> None:
        """End every execution of a sandbox, for good."""
        folder = f"{sandbox}/ctl/x"
        with disk("looking for executions", sandbox):
            names = os.listdir(folder)
        for name in names:
            place = f"{folder}/{name}"
            if name.startswith(".") or layout.value(f"{place}/exit") is not None:
                continue
            with disk("ending the executions", sandbox):
                found = self._tombstone(place, "destroy")
                if isinstance(found, Identity):
                    self._end(place, found, 0, budget)

    def _close(
        self, target: Target, fence: int, execution_id: str, who: str
    ) -> Settled | Identity:
        """Take `go` unless a supervisor has it; return the verdict, or that supervisor."""
        sandbox = self._sandboxes.path(target.lease.id)
        place = self.place(target, execution_id)
        layout.check_incarnation(sandbox, target)
        layout.install_fence(sandbox, fence)
        if layout.claim(sandbox, execution_id, tombstone=f"by-{who}"):
            return Settled(state=SettledState.NEVER_STARTED)
        with disk("ending the execution", sandbox):
            return self._tombstone(place, who)

    def _tombstone(self, place: str, who: str) -> Settled | Identity:
        if settled := self._recorded(place):
            return settled
        here = layout.value(f"{place}/boot") == processes.boot_id()
        destroy = who == "destroy"
        with effect("local:tombstone"), _room_or_not() if destroy else contextlib.nullcontext():
            layout.win(f"{place}/go", f"by-{who}" if here else "lost")
        go = layout.value(f"{place}/go")
        if go is None and destroy:
            # No room for the tombstone; the whole directory goes away in a moment.
            return Settled(state=SettledState.NEVER_STARTED)
        if go is None:
            raise SandboxGoneError(f"the sandbox of {place} is being removed")
        if identity := layout.parse_go(go):
            return identity
        lost = go == "lost"
        return Settled(state=SettledState.LOST if lost else SettledState.NEVER_STARTED)

    def _recorded(self, place: str) -> Settled | None:
        record = self.record(place)
        return None if record is None else Settled(state=SettledState.EXITED, exit=record)

    def _supervised(self, identity: Identity) -> bool:
        if identity.boot != processes.boot_id():
            return False
        if identity.namespace != processes.pid_namespace():
            raise UnavailableError("the supervisor runs in another pid namespace")
        return processes.lives(identity.supervisor, identity.supervisor_began)

    def _end(self, place: str, identity: Identity, grace_cs: int, budget: Budget) -> Settled:
        """Tell the supervisor to end it; do it ourselves if it is late or stuck."""
        since = now_cs()
        with effect("local:end"), _room_or_not():
            layout.win(f"{place}/end", f"cancelled@{since}@{grace_cs}")
        words = (layout.value(f"{place}/end") or f"?@{since}@{grace_cs}").split("@")
        until = min(int(words[1]) + int(words[2]), since + grace_cs)
        if not self._supervised(identity):
            return self._lost(place, identity, budget)
        pidfd = _open_process(identity.supervisor, identity.supervisor_began)
        if pidfd is None:
            return self._lost(place, identity, budget)
        try:
            with effect("local:signal"):
                _signal(pidfd, signal.SIGUSR1)
                # One that somebody stopped would never write its record.
                _signal(pidfd, signal.SIGCONT)
            while True:
                if settled := self._recorded(place):
                    return settled
                now = now_cs()
                if now >= until + _POLITE_CS:
                    # Its own grace may be longer than ours.
                    with effect("local:kill"):
                        self._kill_command(identity)
                if now >= until + _STUCK_CS:
                    with effect("local:kill_supervisor"):
                        _signal(pidfd, signal.SIGKILL)
                pause = 20 if now >= until else min(until - now, 10) * 10
                dead = _readable(pidfd, pause)
                if dead:
                    return self._recorded(place) or self._lost(place, identity, budget)
                budget.check()
        finally:
            os.close(pidfd)

    def _kill_command(self, identity: Identity) -> set[int]:
        """Kill what is left of a command; return who was still there."""
        left = processes.session_members(identity.child, identity.child_began)
        if identity.group is not None:
            left |= {
                pid
                for pid in cgroups.members(identity.group)
                if processes.stat(pid) is not None
            }
            cgroups.kill(identity.group)
        processes.send(left, signal.SIGKILL)
        return left

    def _lost(self, place: str, identity: Identity, budget: Budget) -> Settled:
        """The supervisor is dead: see its command gone, then look for its record once more."""
        if identity.boot == processes.boot_id():
            until = now_cs() + _KILL_CS
            with effect("local:kill"):
                while self._kill_command(identity):
                    if now_cs() >= until:
                        raise UnavailableError("what is left of the command does not die")
                    budget.wait(0.01)
            if identity.group is not None:
                cgroups.remove(identity.group)
        return self._recorded(place) or Settled(state=SettledState.LOST)

    # ---- output ----------------------------------------------------------------------------

    def forget(self, target: Target, fence: int, execution_id: str) -> None:
        """Free the output of what has ended; the claim, `go` and `exit` stay."""
        sandbox = self._sandboxes.path(target.lease.id)
        place = self.place(target, execution_id)
        layout.check_incarnation(sandbox, target)
        layout.install_fence(sandbox, fence)
        if not os.path.isdir(place):
            raise ExecutionUnknownError(f"no execution {execution_id} in {sandbox}")
        if layout.value(f"{place}/exit") is None:
            identity = layout.parse_go(layout.value(f"{place}/go") or "")
            if identity is not None and self._supervised(identity):
                raise UnavailableError(f"{execution_id} has not ended")
        for name in ("out", "err"):
            with (
                disk("freeing output", sandbox),
                effect("local:forget"),
                contextlib.suppress(FileNotFoundError),
            ):
                os.unlink(f"{place}/{name}")


@contextlib.contextmanager
def _room_or_not() -> Iterator[None]:
    """Go on without a name that a full disk has no room for: ending must work all the same."""
    try:
        yield
    except OSError as error:
        if error.errno not in layout.FULL:
            raise


def _base(group: str | None) -> str | None:
    return None if group is None else os.path.dirname(group)


def _cs(duration: timedelta) -> int:
    return max(0, round(duration.total_seconds() * 100))


def _directory(sandbox: str, root: str, cwd: str | None) -> str:
    """Return where the command starts; outside of the sandbox is refused."""
    wanted = PurePosixPath(sandbox, "work", cwd or ".")
    real = os.path.realpath(wanted)
    inside = real == root or real.startswith(f"{root}/")
    if not inside or real == f"{root}/ctl" or real.startswith(f"{root}/ctl/"):
        raise ConfigRejectedError(f"cwd {cwd!r} is outside of the sandbox")
    return str(wanted)


def _open_process(pid: int, began: int) -> int | None:
    """Return a pidfd of exactly this process, None if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise UnavailableError(f"no descriptor left: {error.strerror}") from error
        return None
    if processes.lives(pid, began):
        return pidfd
    os.close(pidfd)
    return None


def _signal(pidfd: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _readable(pidfd: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
