"""What a message says, what a worker holds while it works, and what it works with."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from leasehold.blobs import Blobs
from leasehold.domain.lifecycle import EndKind, Step
from leasehold.domain.pace import Pace
from leasehold.domain.redaction import Redactor
from leasehold.domain.runtime_urls import Known
from leasehold.domain.secrets import Pins
from leasehold.domain.specs import RunSpec
from leasehold.domain.timers import Timers
from leasehold.errors import LostClaimError
from leasehold.orchestrator.hearing import Heard
from leasehold.orchestrator.holds import Holds
from leasehold.provider.contract import LeaseRef, Provider, Settled, Target
from leasehold.seams import effect
from leasehold.store.database import Database, Row
from leasehold.store.sql import load
from leasehold.trees.reading import Limits

SECOND_US: Final = 1_000_000
EPOCH_SHIFT: Final = 40
"""The high bits of a fence in the sandbox are the deployment's epoch."""


def us(duration: timedelta) -> int:
    """Return microseconds."""
    return duration // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Message:
    """ "Look at this row": all that ever goes through the broker."""

    kind: str
    """`run`, `lease`, `check`, or `beat` (then `id` is the lane)."""

    id: str
    fence: int
    step: Step
    queue: str


class Guard(Protocol):
    """Whether this process may still trust its session."""

    def lost(self) -> str | None:
        """Return why no new effect may be started, or None."""


class FoundSecret(Protocol):
    @property
    def version(self) -> int: ...

    @property
    def value(self) -> str: ...


class Secrets(Protocol):
    """What resolves secrets in this process (`leasehold.vault`)."""

    def look_up(self, tenant_id: str, name: str, version: int = 0) -> FoundSecret:
        """Return the version that there is now, or raise with the reason."""

    def resolve(self, tenant_id: str, pins: Pins) -> dict[str, str]:
        """Return the values, or raise with the reason."""

    def redactor(self, tenant_id: str, pins: Pins) -> Redactor:
        """Return what hides the values."""


class Providers(Protocol):
    """The loaded plugins of this process."""

    def require(self, key: str) -> Provider:
        """Return the provider or raise with the keys that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """How much may go into a sandbox and come out of it."""

    workspace: Limits = field(default_factory=lambda: Limits(files=100_000, bytes=1024**3))
    artifacts: Limits = field(default_factory=lambda: Limits(files=10_000, bytes=1024**3))
    artifact_bytes: int = 256 * 1024**2
    """Of one artifact."""


@dataclass(slots=True, kw_only=True)
class Context:
    """The parts that the engine works with; `bootstrap` builds it."""

    database: Database
    timers: Timers
    deployment: str
    epoch: int
    worker_id: str
    publish: Callable[[Message], bool | None]
    """Best effort; a lost message costs latency only. False: it was surely not sent."""

    nudge: Callable[[], None] = lambda: None
    """Wake this host's clock: something became due."""

    providers: Providers | None = None
    vault: Secrets | None = None
    guard: Guard | None = None
    queues: frozenset[str] = frozenset()
    sticky: bool = True
    interrupts: Mapping[str, str] = field(default_factory=dict)
    """Run id → why its provider call should stop; filled by a watching thread."""

    lanes: dict[str, float] = field(default_factory=dict)
    """Beat lane → boot time of its last message; the clock's memory."""

    pace: Pace = field(default_factory=Pace)
    """How the database's clock goes; the clock's memory."""

    blobs: Blobs = field(default_factory=lambda: Blobs("memory://"))
    """The store of workspaces and artifacts."""

    limits: FileLimits = field(default_factory=FileLimits)
    run_token_key: str = field(default="", repr=False)
    """Signs the tokens that sandboxes report with; empty: none is given."""

    reach: Callable[[], Known | None] = lambda: None
    """What is known of the API's addresses now; None: no sandbox is to be asked."""

    heard: Heard = field(default_factory=Heard)
    """What sandboxes have answered a moment ago; this process's memory."""

    git_schemes: frozenset[str] = frozenset()
    git_ca_file: Path | None = None
    max_concurrent: int | None = None
    max_per_tenant: int | None = None
    max_queued: int = 100_000
    rng: random.Random = field(default_factory=random.Random)
    holds: Holds = field(default_factory=Holds)
    """What the threads of this process work on."""

    on_step: Callable[[str, "Job", str | None], None] = lambda _phase, _job, _error: None
    """Told `started`, `finished` or `failed` of each step: Flower's job."""

    def check_trust(self) -> None:
        """
        Refuse to start an effect without a session.

        Raises:
            LostClaimError: The session is not confirmed; the observers may have expired it.
        """
        if self.guard is not None and (reason := self.guard.lost()):
            raise LostClaimError(f"no confirmed session: {reason}")

    def provider(self, key: str) -> Provider:
        assert self.providers is not None, "this process does not run steps"
        return self.providers.require(key)


def send(context: Context, message: Message) -> bool:
    """Publish one message as an effect with its crash points; False if it was not sent."""
    with effect(f"publish.{message.step}"):
        return context.publish(message) is not False


@dataclass(slots=True, kw_only=True)
class Job:
    """A claimed row with everything that was read of it; lives in one worker's memory."""

    step: Step
    fence: int
    run: Row | None = None
    lease: Row | None = None
    execution: Row | None = None
    environment: Row | None = None
    """Read with the claim of a run that is to be validated."""

    taken_over: bool = False
    """A predecessor may have acted: seize before deciding anything."""

    verdict: Settled | None = None
    """Proof that nothing of the execution runs; its output is still being fetched."""

    sticky: bool = True
    """False: whoever runs this does not go on with the next step itself."""

    tries: int = 0
    """Failed calls in a row to end the execution; kept while this worker holds it."""
    spec_cache: RunSpec | None = None

    @property
    def spec(self) -> RunSpec:
        """Return what the run is to do; parsed once per chain."""
        if self.spec_cache is None:
            assert self.run is not None
            self.spec_cache = RunSpec.model_validate(load(self.run["spec"]))
        return self.spec_cache

    @property
    def now_us(self) -> int:
        """Return the database's time when this job was claimed."""
        for row in (self.run, self.lease):
            if row is not None and "now_us" in row:
                return int(row["now_us"])
        return 0

    @property
    def end_requested(self) -> EndKind | None:
        assert self.run is not None
        return EndKind(self.run["end_requested"]) if self.run["end_requested"] else None

    @property
    def subject_id(self) -> str:
        row = self.run or self.lease
        assert row is not None
        return str(row["id"])

    def sandbox_fence(self, context: Context) -> int:
        """Return the fence as the provider gets it: the epoch in its high bits."""
        return context.epoch << EPOCH_SHIFT | self.fence

    def ref(self, context: Context) -> LeaseRef:
        assert self.lease is not None
        return lease_ref(self.lease, deployment=context.deployment)

    def target(self, context: Context) -> Target:
        """Return the sandbox, from the lease's metadata alone; asks for its secrets."""
        assert self.lease is not None
        return Target(
            lease=self.ref(context),
            handle=load(self.lease["handle"]) or {},
            config=self.config(context),
        )

    def config(self, context: Context) -> Mapping[str, Any]:
        """Return the lease's config with its secrets resolved; never in a transaction."""
        from leasehold.orchestrator import revealing

        assert self.lease is not None
        return revealing.config(context, self.lease["tenant_id"], load(self.lease["facts"]))


def interruptions(context: Context, job: Job) -> Callable[[], str | None]:
    """Return what tells a long provider call why it should stop."""
    subject = job.subject_id

    def reason() -> str | None:
        if context.guard is not None and (why := context.guard.lost()):
            return why
        return context.interrupts.get(subject)

    return reason


def lease_ref(lease: Row, *, deployment: str) -> LeaseRef:
    return LeaseRef(
        id=lease["id"],
        number=lease["number"],
        deployment=deployment,
        tenant_id=lease["tenant_id"],
        environment_id=lease["environment_id"],
    )


@dataclass(frozen=True, slots=True)
class Trouble:
    """A step failed; `permanent` says whether trying again can help."""

    code: str
    message: str
    permanent: bool = False
    retry_after_s: float | None = None
    counts: bool = True
    """False: waiting for room is no failure of the infrastructure."""


__all__ = [
    "EPOCH_SHIFT",
    "SECOND_US",
    "Context",
    "FileLimits",
    "Guard",
    "Job",
    "Message",
    "Providers",
    "Trouble",
    "interruptions",
    "lease_ref",
    "send",
    "us",
]
