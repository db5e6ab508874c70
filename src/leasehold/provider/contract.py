"""
The provider contract: how a lease becomes a sandbox and a command runs in it.

Two ideas carry everything.

*Ids are ours.* The lease id and the execution id are chosen before a call and are the
idempotency keys and the labels. A handle can be lost between a remote effect and our commit;
an id cannot. Repeating a call is always the repair, so every method may be called twice, by
different processes, at the same time.

*Fences are installed in the sandbox.* Every call that has an effect on an existing sandbox
brings the holder's fence. It installs its own first and refuses with `StaleFenceError` if a
higher one is there. Whoever takes over calls `seize` before it decides anything, so that a
paused predecessor finds itself refused where it matters.

What dies here? Any caller, at any instruction. A provider must therefore never keep in memory
what a second process would need.

Methods are synchronous and thread-safe. A method that is not told otherwise raises one of the
`ProviderError` classes; their flag `retryable` decides what happens next.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import BinaryIO

from leasehold.provider.budget import Budget
from leasehold.provider.shapes import (
    API_VERSION,
    HANDLE_MAX_BYTES,
    OUTPUT_CAP_BYTES,
    Acquired,
    Capabilities,
    Chunk,
    Command,
    Containment,
    Enforcement,
    ExecutionState,
    Exit,
    ExitCause,
    Handle,
    Health,
    HealthState,
    Info,
    Inspection,
    Isolation,
    Json,
    LeaseRef,
    NativeTtl,
    Network,
    Owned,
    Polled,
    PollItem,
    Problem,
    ReleaseMode,
    Renewal,
    Sandbox,
    SandboxState,
    Settled,
    SettledState,
    Started,
    StartOutcome,
    Stream,
    Suspend,
    Target,
    Validation,
)

__all__ = [
    "API_VERSION",
    "HANDLE_MAX_BYTES",
    "OUTPUT_CAP_BYTES",
    "Acquired",
    "Budget",
    "Capabilities",
    "Chunk",
    "Command",
    "Containment",
    "Enforcement",
    "ExecutionState",
    "Exit",
    "ExitCause",
    "Handle",
    "Health",
    "HealthState",
    "Info",
    "Inspection",
    "Isolation",
    "Json",
    "LeaseRef",
    "NativeTtl",
    "Network",
    "Owned",
    "PollItem",
    "Polled",
    "Problem",
    "Provider",
    "ReleaseMode",
    "Renewal",
    "Sandbox",
    "SandboxState",
    "Settled",
    "SettledState",
    "StartOutcome",
    "Started",
    "Stream",
    "Suspend",
    "Target",
    "Validation",
]


class Provider(ABC):
    """What a plugin implements; `leasehold.provider.ShellProvider` is the shortcut."""

    @abstractmethod
    def describe(self) -> Info:
        """Say what this is; pure, no input or output."""

    @abstractmethod
    def probe(self, config: Json, *, budget: Budget) -> Health:
        """Look whether sandboxes can be made here; cheap, no side effect."""

    @abstractmethod
    def validate(self, config: Json, *, budget: Budget) -> Validation:
        """Check a config beyond its schema; no side effect."""

    @abstractmethod
    def acquire(
        self,
        lease: LeaseRef,
        config: Json,
        *,
        known: Handle | None,
        ttl: timedelta,
        fence: int,
        budget: Budget,
    ) -> Sandbox:
        """
        Make the lease's sandbox exist and be ready.

        Order: `known` and alive → resume it → adopt what carries the lease id → create.
        Idempotent on ``lease.id``, under a deterministic name; installs the fence before it
        resumes and before it returns. `ttl` is the sandbox's own time to live from now.

        Raises:
            SandboxGoneError: `known` was given and is proven gone; nothing was created.
        """

    @abstractmethod
    def seize(self, target: Target, *, fence: int, budget: Budget) -> None:
        """Install the fence; refuses if a higher one is there."""

    @abstractmethod
    def inspect(self, target: Target, *, budget: Budget) -> Inspection:
        """Look; "gone" is an answer, not reaching the sandbox is an error."""

    @abstractmethod
    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        """Push the sandbox's own time to live to `ttl` from now; never resurrects."""

    @abstractmethod
    def release(self, target: Target, *, fence: int, mode: ReleaseMode, budget: Budget) -> None:
        """
        Destroy, suspend for reuse, or keep; gone already is a success for destroy.

        Destroy kills the whole tree first. A target whose handle is empty (the acquire's
        answer was lost) is found by the lease id.

        Raises:
            SandboxGoneError: mode is suspend or keep and the sandbox is gone.
        """

    @abstractmethod
    def list_owned(self, deployment: str, *, config: Json, budget: Budget) -> Iterator[Owned]:
        """List every sandbox with our mark, from labels or files alone."""

    @abstractmethod
    def start(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        command: Command,
        budget: Budget,
    ) -> Started:
        """
        Start the command detached under its id; return when the claim is durable.

        Never creates the sandbox. Idempotent: a second call answers "adopted".

        Raises:
            SandboxGoneError: There is no such sandbox.
            StaleFenceError: A newer holder exists.
        """

    @abstractmethod
    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        """
        Look at many executions; pure, never blocks long, one answer per item in order.

        `limit_bytes` bounds the new output per stream and item. `exited` may be answered
        while output is still to be read: the sizes in `Exit` say how much there is.
        """

    @abstractmethod
    def settle(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> Settled:
        """
        Find out, with proof, how an execution ended, ending it where it is unclear.

        Only called by a claim that has seized. Kills what it cannot account for. While the
        command demonstrably runs under its supervisor it raises `UnavailableError`.
        """

    @abstractmethod
    def read(
        self,
        target: Target,
        *,
        execution_id: str,
        handle: Handle,
        stream: Stream,
        offset: int,
        limit_bytes: int,
        budget: Budget,
    ) -> Chunk:
        """Return output from a byte offset; repeatable."""

    @abstractmethod
    def cancel(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        handle: Handle,
        grace: timedelta,
        budget: Budget,
    ) -> Settled:
        """
        End the execution's tree: TERM, `grace`, KILL; return with proof that it is gone.

        Keeps the output. Leaves a tombstone if it never started. An end of its own that came
        first keeps its own exit record.
        """

    @abstractmethod
    def forget(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> None:
        """Free an ended execution's stored output; its claim stays."""

    def put(
        self,
        target: Target,
        path: str,
        source: BinaryIO,
        *,
        fence: int,
        tree: bool,
        mode: int,
        budget: Budget,
    ) -> None:
        """Write one file (atomically) or, with `tree`, unpack a tar stream below `path`."""
        raise NotImplementedError

    def get(self, target: Target, path: str, *, tree: bool, budget: Budget) -> Iterator[bytes]:
        """Read one file or, with `tree`, a tar stream of what is below `path`."""
        raise NotImplementedError

    def watch(self, callback: Callable[[str], None]) -> None:
        """Call back with the id of each execution that this process sees end; optional."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up what the process holds (threads, connections); sandboxes stay."""
        return
