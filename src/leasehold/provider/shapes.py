"""
The shapes that a provider and the engine exchange: frozen, plain, the same on every host.

What each method does with them is said in `contract`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias

from leasehold.errors import ProviderError

API_VERSION: Final = 1
"""The major version of this contract; a plugin of another major is refused."""

Json: TypeAlias = Mapping[str, Any]
Handle: TypeAlias = Mapping[str, Any]
"""JSON, at most 4 KiB, without secrets; has ``v`` (its version) and ``incarnation``."""

HANDLE_MAX_BYTES: Final = 4096
OUTPUT_CAP_BYTES: Final = 16 * 1024 * 1024
"""Default cap per stream of one execution."""


class Isolation(StrEnum):
    NONE = "none"
    PROCESS = "process"
    CONTAINER = "container"
    VM = "vm"


class Enforcement(StrEnum):
    ENFORCED = "enforced"
    BEST_EFFORT = "best_effort"
    NO = "no"


class Network(StrEnum):
    NONE = "none"
    FULL = "full"
    ALLOW_LIST = "allow_list"


class Suspend(StrEnum):
    """What `release(mode=suspend)` keeps: nothing, the files, or also the memory."""

    NONE = "none"
    DISK = "disk"
    MEMORY = "memory"


class NativeTtl(StrEnum):
    NONE = "none"
    ABSOLUTE = "absolute"
    IDLE = "idle"


class Containment(StrEnum):
    """How far "the whole tree" reaches when a command is ended."""

    TREE = "tree"
    """A cgroup or pid namespace: also a process that left its session is caught."""

    SESSION = "session"
    """Only the command's session: a process that calls setsid escapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Honest labels; what is not declared here is refused by `validate`, never ignored."""

    isolation: Isolation
    cpu: Enforcement = Enforcement.NO
    memory: Enforcement = Enforcement.NO
    pids: Enforcement = Enforcement.NO
    disk: Enforcement = Enforcement.NO
    output: Enforcement = Enforcement.ENFORCED
    network: frozenset[Network] = frozenset({Network.FULL})
    suspend: Suspend = Suspend.NONE
    native_ttl: NativeTtl = NativeTtl.NONE
    survives_worker_exit: bool = True
    survives_host_reboot: bool = False
    survives_engine_restart: bool = True
    containment: Containment = Containment.SESSION
    host_bound: bool = True
    """True: only workers of the host that made a sandbox reach it."""

    lists_by_config: bool = False
    """`list_owned` needs a config to know where to look: it is asked once for each in use."""

    supervisor_in_reach: bool = False
    """
    True: a command could find its supervisor's directory or processes, and so forge its own
    exit, since they are in the sandbox with it. Without isolation they always are.
    """

    files: bool = True
    """`put` and `get` work."""

    watch: bool = False
    """`watch` tells of exits on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a plugin is; pure data, advertised in SQL by the workers that loaded it."""

    key: str
    version: str
    capabilities: Capabilities
    config_schema: Json
    """JSON schema (2020-12) of the config; ``additionalProperties`` false unless meant."""

    api_version: int = API_VERSION


class HealthState(StrEnum):
    UNDETECTED = "undetected"
    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    state: HealthState
    summary: str
    details: Json = field(default_factory=dict)
    capacity: int | None = None
    """Sandboxes that fit at once; None: the host's own number decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    path: str
    """Where in the config, dotted (``limits.memory_mb``); empty for the whole."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    """The normalized config, defaults filled in; only meaningful if `ok`."""

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRef:
    """The identity of a lease: what goes into names and labels. All of it was chosen by us."""

    id: str
    number: int
    """Grows with every lease of the deployment; the sweep compares it with SQL's highest."""

    deployment: str
    """Only sandboxes that carry the same deployment id are ever ours."""

    tenant_id: str = "default"
    environment_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An existing sandbox, with everything needed to reach it and no other row at hand."""

    lease: LeaseRef
    handle: Handle
    config: Json
    """As recovered from the lease's metadata, secrets resolved."""


class Acquired(StrEnum):
    CREATED = "created"
    ADOPTED = "adopted"
    """An earlier call with this lease id had made it already."""

    RESUMED = "resumed"
    """`known` was found alive or suspended and is ready again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox that is ready, not merely started."""

    sandbox_id: str
    """The provider's own name for it, for people: a path, a container id, a URL."""

    handle: Handle
    outcome: Acquired
    remote_cwd: str
    """Absolute path, inside the sandbox, where commands start by default."""

    metadata: Json = field(default_factory=dict)
    """Facts for people; no secrets."""


class SandboxState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    state: SandboxState
    incarnation: str | None = None
    expires_in_s: float | None = None
    """Seconds until the sandbox ends by itself; None: never or unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    expires_in_s: float | None
    enforced_by: NativeTtl


class ReleaseMode(StrEnum):
    DESTROY = "destroy"
    SUSPEND = "suspend"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """One sandbox that carries our deployment's mark, known from labels or files alone."""

    handle: Handle
    lease_id: str
    lease_number: int
    fence: int | None
    age_s: float
    """Seconds since it was made, on the provider's own clock."""

    sandbox_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; nothing of it is interpreted by a shell."""

    argv: tuple[str, ...]
    cwd: str | None = None
    """Relative to the sandbox's `remote_cwd`, or absolute inside the sandbox's root."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Exactly the given variables; the provider adds a safe PATH, HOME, LANG, TMPDIR."""

    stdin: bytes = b""
    timeout: timedelta | None = None
    """Second line only: the control plane ends a run first; the supervisor ends it too."""

    grace: timedelta = timedelta(seconds=10)
    """Between TERM and KILL when the timeout strikes."""

    output_cap_bytes: int = OUTPUT_CAP_BYTES
    """Per stream; what is beyond it is dropped and counted."""


class StartOutcome(StrEnum):
    STARTED = "started"
    ADOPTED = "adopted"
    """This id was claimed before; whatever that start did stands."""

    CANCELLED = "cancelled"
    """A tombstone: `cancel` came first; nothing was or ever will be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    outcome: StartOutcome
    handle: Handle
    """Of the execution; small JSON, may be empty if the id is enough."""


class ExitCause(StrEnum):
    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    NOT_FOUND = "not_found"
    """The command does not exist; code 127."""

    NOT_EXECUTABLE = "not_executable"
    """The command exists and cannot be executed; code 126."""

    CWD = "cwd"
    """The working directory does not exist or cannot be entered; code None."""

    EXPIRED = "expired"
    """The sandbox's own time to live ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The supervisor's record of the end; the last word on what happened."""

    cause: ExitCause
    code: int | None
    """Exit code; None if a signal ended it."""

    signal: int | None = None
    stdout_bytes: int = 0
    """Stored bytes, at most the cap; all of them can be read now."""

    stderr_bytes: int = 0
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    duration_s: float | None = None


class ExecutionState(StrEnum):
    STARTING = "starting"
    """Claimed; no record of a process yet."""

    RUNNING = "running"
    EXITED = "exited"
    UNCLEAR = "unclear"
    """Neither exit record nor living process: a claim that seized must `settle` it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollItem:
    target: Target
    execution_id: str
    handle: Handle
    stdout_offset: int = 0
    stderr_offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """One item's answer; `error` set means that nothing is known, not that anything ended."""

    execution_id: str
    state: ExecutionState | None = None
    exit: Exit | None = None
    """Set if and only if `state` is exited."""

    stdout: bytes = b""
    """New bytes from the item's offset on, bounded; more may follow."""

    stderr: bytes = b""
    error: ProviderError | None = None


class SettledState(StrEnum):
    EXITED = "exited"
    LOST = "lost"
    """It may have run; its record is gone; proven: nothing of it runs now or ever will."""

    NEVER_STARTED = "never_started"
    """Proven: the command was not started and never will be (a tombstone stands)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Proof that nothing of an execution runs any more."""

    state: SettledState
    exit: Exit | None = None
    """Set if and only if `state` is exited."""


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    data: bytes
    next_offset: int
    eof: bool
    """No byte will ever follow `next_offset`."""
