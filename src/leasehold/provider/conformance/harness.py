"""
What the suite needs to know of a provider, and one sandbox under examination.

A `Harness` is written by the plugin's author; a `Case` is one check's world: a lease of its
own, a provider made for it, and the promise that nothing of it is left when the check is over.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, Self

from leasehold.errors import ProviderError
from leasehold.provider.budget import Budget
from leasehold.provider.contract import (
    Command,
    ExecutionState,
    Exit,
    Handle,
    Info,
    Inspection,
    Json,
    LeaseRef,
    Owned,
    Polled,
    PollItem,
    Provider,
    ReleaseMode,
    Renewal,
    Sandbox,
    Settled,
    SettledState,
    Started,
    Stream,
    Target,
)

TTL: Final = timedelta(minutes=10)
LAST_FENCE: Final = 10**12
_PART: Final = 4 * 1024 * 1024
_PAUSE_S: Final = 0.005
_PATIENCE_S: Final = 1.0
_numbers = count(1)


class ConformanceError(AssertionError):
    """The provider did not do what the contract says."""


class NotCheckedError(Exception):
    """The check found that it cannot be made here; says why."""


def must(condition: object, what: str) -> None:
    """State what has to hold."""
    if not condition:
        raise ConformanceError(what)


@contextmanager
def refused(kind: type[Exception] | tuple[type[Exception], ...], what: str) -> Iterator[None]:
    """Expect that the block is refused with this error."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(one.__name__ for one in kinds)
    try:
        yield
    except kinds:
        return
    except ProviderError as error:
        raise ConformanceError(
            f"{what}: expected {names}, got {type(error).__name__}: {error}"
        ) from error
    raise ConformanceError(f"{what}: expected {names}, but it was accepted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Harness:
    """How the suite reaches a provider."""

    provider: Callable[[str], Provider]
    """Make a provider for a deployment id; called anew in each process, children included."""

    config: Json
    """A valid config."""

    scratch: Path
    """A directory on this host for the suite's own things; outside of every sandbox."""

    leaks: Callable[[], Sequence[str]] = field(default=lambda: ())
    """Say what is left on this host after every destroy: directories, processes."""

    shown: Callable[[], Sequence[str]] = field(default=lambda: ())
    """Return what the engine shows to its users now: inspect, labels, events, logs."""

    posix_commands: bool = True
    """False: the sandbox has only the words of `fake`; checks of real commands are left out."""

    short_ttl_s: float = 1.0
    """A time to live that the provider still keeps."""

    limit_s: float = 30.0
    """How long any one condition may take."""

    deployment: str = field(default_factory=lambda: f"conformance-{os.urandom(6).hex()}")


class Done(NamedTuple):
    """How a command ended, and all that was stored of its output."""

    exit: Exit
    stdout: bytes
    stderr: bytes


class Case:
    """One sandbox under examination, seen through one provider object."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.provider = harness.provider(harness.deployment)
        self.info: Info = self.provider.describe()
        self.fence = 1
        self.lease = new_lease(harness.deployment)
        self.handle: Handle = {}
        self.remote_cwd = "/"
        self._others: list[Case] = []
        self._executions = count(1)

    # ---- parts -----------------------------------------------------------------------------

    def again(self) -> "Case":
        """Return the same sandbox as a process sees it that knows only its rows."""
        other = Case(self.harness)
        other.lease, other.handle, other.fence = self.lease, dict(self.handle), self.fence
        other.remote_cwd = self.remote_cwd
        other._executions = count(1000 * (len(self._others) + 1))
        self._others.append(other)
        return other

    def another(self) -> "Case":
        """Return a case with a lease of its own."""
        other = Case(self.harness)
        self._others.append(other)
        return other

    def dismiss(self, other: "Case") -> None:
        """Have done with another case, whose sandbox was destroyed."""
        self._others.remove(other)
        other._close_providers()  # noqa: SLF001  its own kind

    @property
    def target(self) -> Target:
        return Target(lease=self.lease, handle=self.handle, config=self.harness.config)

    def budget(self) -> Budget:
        return Budget(self.harness.limit_s)

    def new_id(self) -> str:
        return f"x{next(self._executions)}"

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, in bounded polls."""
        limit = self.budget()
        while not condition():
            must(limit.left_s() > _PAUSE_S, f"not within {self.harness.limit_s:g} s: {what}")
            limit.wait(_PAUSE_S)

    # ---- the contract's methods ------------------------------------------------------------

    def acquire(self, *, known: Handle | None = None, ttl: timedelta = TTL) -> Sandbox:
        sandbox = self.provider.acquire(
            self.lease,
            self.harness.config,
            known=known,
            ttl=ttl,
            fence=self.fence,
            budget=self.budget(),
        )
        self.handle, self.remote_cwd = sandbox.handle, sandbox.remote_cwd
        return sandbox

    def seize(self, fence: int | None = None) -> None:
        self.fence = fence or self.fence
        self.provider.seize(self.target, fence=self.fence, budget=self.budget())

    def inspect(self) -> Inspection:
        return self.provider.inspect(self.target, budget=self.budget())

    def renew(self, ttl: timedelta = TTL) -> Renewal:
        return self.provider.renew(self.target, fence=self.fence, ttl=ttl, budget=self.budget())

    def release(self, mode: ReleaseMode = ReleaseMode.DESTROY) -> None:
        self.provider.release(self.target, fence=self.fence, mode=mode, budget=self.budget())

    def owned(self) -> list[Owned]:
        """Return what is listed for our lease."""
        listed = self.owned_by(self.lease.deployment)
        return [one for one in listed if one.lease_id == self.lease.id]

    def owned_by(self, deployment: str) -> list[Owned]:
        found = self.provider.list_owned(
            deployment, config=self.harness.config, budget=self.budget()
        )
        return list(found)

    def start(self, execution_id: str, command: Command) -> Started:
        return self.provider.start(
            self.target,
            fence=self.fence,
            execution_id=execution_id,
            command=command,
            budget=self.budget(),
        )

    def poll(self, execution_id: str, offset: int = 0, limit_bytes: int = _PART) -> Polled:
        item = PollItem(
            target=self.target,
            execution_id=execution_id,
            handle={},
            stdout_offset=offset,
        )
        return self.provider.poll([item], limit_bytes=limit_bytes, budget=self.budget())[0]

    def settle(self, execution_id: str) -> Settled:
        return self.provider.settle(
            self.target,
            fence=self.fence,
            execution_id=execution_id,
            handle={},
            budget=self.budget(),
        )

    def cancel(self, execution_id: str, grace_s: float = 0.2) -> Settled:
        return self.provider.cancel(
            self.target,
            fence=self.fence,
            execution_id=execution_id,
            handle={},
            grace=timedelta(seconds=grace_s),
            budget=self.budget(),
        )

    # ---- commands --------------------------------------------------------------------------

    def counted(self, execution_id: str, text: str = "out", seconds: float = 0) -> Command:
        """Return a command that counts its starts, writes `text` and lasts `seconds`."""
        if self.harness.posix_commands:
            script = 'echo x >>"starts-$1"; printf %s "$2"; [ "$3" = 0 ] || sleep "$3"'
            words = ("sh", "-c", script, "sh", execution_id, text, f"{seconds:g}")
            return Command(argv=words)
        mark = ("mark", str(self._mark(execution_id)), "then", "print", text)
        return Command(argv=(*mark, "then", "sleep", f"{seconds:g}"))

    def starts(self, execution_id: str) -> int:
        """Return how often a counted command was started, by its own witness."""
        if self.harness.posix_commands:
            done = self.run("cat", f"starts-{execution_id}")
            return done.stdout.count(b"x") if done.exit.code == 0 else 0
        path = self._mark(execution_id)
        return len(path.read_text().splitlines()) if path.exists() else 0

    def _mark(self, execution_id: str) -> Path:
        return self.harness.scratch / f"starts-{self.lease.id}-{execution_id}"

    def shell(self, script: str, *words: str, **more: object) -> Command:
        """Return a shell command; `words` are its arguments from $1 on."""
        return replace(Command(argv=("sh", "-c", script, "sh", *words)), **more)  # type: ignore[arg-type]  # fields of Command

    def run(self, *argv: str, **more: object) -> Done:
        """Run a command of its own id to its end."""
        return self.run_command(replace(Command(argv=argv), **more))  # type: ignore[arg-type]  # as above

    def run_command(self, command: Command) -> Done:
        name = self.new_id()
        self.start(name, command)
        return self.wait(name)

    def wait(self, execution_id: str) -> Done:
        """Wait for the end; return it with all stored output."""
        self.until(
            lambda: self.look(execution_id).state is ExecutionState.EXITED,
            f"the end of {execution_id}",
        )
        return self.ended(execution_id)

    def fate(self, execution_id: str) -> Done | None:
        """
        Wait for the end; None if it is proven that it was never started.

        A start that was overtaken by a newer fence may give up after it was acknowledged. Then
        the claim stays `starting`, until its next holder settles it.
        """
        patience = Budget(_PATIENCE_S)
        waiting = {ExecutionState.STARTING, ExecutionState.UNCLEAR}

        def decided() -> bool:
            state = self.look(execution_id).state
            stuck = state in waiting and patience.left_s() <= 0
            return state is ExecutionState.EXITED or stuck

        self.until(decided, f"the fate of {execution_id}")
        if self.settle(execution_id).state is SettledState.NEVER_STARTED:
            return None
        return self.ended(execution_id)

    def look(self, execution_id: str) -> Polled:
        """Poll one execution; an error of the item is raised."""
        polled = self.poll(execution_id, limit_bytes=1)
        if polled.error is not None:
            raise polled.error
        return polled

    def ended(self, execution_id: str) -> Done:
        """Return how it ended; all output must be there, now that `exited` was seen."""
        exit_ = self.look(execution_id).exit
        if exit_ is None:
            raise ConformanceError("a poll that says exited brings the exit")
        sizes = ((Stream.STDOUT, exit_.stdout_bytes), (Stream.STDERR, exit_.stderr_bytes))
        out, err = (self.whole(execution_id, stream, size) for stream, size in sizes)
        return Done(exit_, out, err)

    def whole(self, execution_id: str, stream: Stream, size: int) -> bytes:
        """Read a finished stream in parts."""
        data, eof = b"", False
        while not eof:
            chunk = self.provider.read(
                self.target,
                execution_id=execution_id,
                handle={},
                stream=stream,
                offset=len(data),
                limit_bytes=_PART,
                budget=self.budget(),
            )
            must(chunk.data or chunk.eof, f"{len(data)} of {size} bytes, and no more to read")
            data, eof = data + chunk.data, chunk.eof
            must(chunk.next_offset == len(data), "next_offset counts the bytes that were read")
        must(len(data) == size, f"the exit record says {size} bytes, {len(data)} can be read")
        return data

    def running(self, execution_id: str, text: bytes = b"out") -> None:
        """Wait until a command runs and has said `text`."""
        self.until(
            lambda: text in self.poll(execution_id).stdout, f"{execution_id} said {text!r}"
        )

    # ---- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Destroy what may be there; then nothing may be left."""
        self._destroy()
        listed = [one.lease_id for one in self.owned_by(self.harness.deployment)]
        must(not listed, f"still listed after they were destroyed: {listed}")
        self._close_providers()
        left: list[str] = []

        def clean() -> bool:
            left[:] = self.harness.leaks()
            return not left

        with suppress(ConformanceError):
            self.until(clean, "nothing is left")
        must(not left, f"left behind: {left}")

    def _destroy(self) -> None:
        self.provider.release(
            Target(lease=self.lease, handle={}, config=self.harness.config),
            fence=LAST_FENCE,
            mode=ReleaseMode.DESTROY,
            budget=self.budget(),
        )
        for other in self._others:
            other._destroy()  # noqa: SLF001  its own kind

    def _close_providers(self) -> None:
        for other in self._others:
            other._close_providers()  # noqa: SLF001  its own kind
        self.provider.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # The check's own failure is the news.
        with suppress(Exception):
            self.close()


def new_lease(deployment: str) -> LeaseRef:
    """Return a lease that nobody has had."""
    return LeaseRef(
        id=f"conf-{os.urandom(8).hex()}", number=next(_numbers), deployment=deployment
    )
