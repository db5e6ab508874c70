"""
The provider: directories from `sandbox`, commands through the shell supervisor.

Authoritative is the disk. A worker that dies in `acquire` leaves either nothing that is listed
or a whole sandbox with its label, which the next `acquire` of that lease adopts; one that dies
in `release` leaves a sandbox that the next `release` finds, or a nameless rest that it clears.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from leasehold.provider import (
    SAFE_PATH,
    Acquired,
    Budget,
    Capabilities,
    Command,
    Handle,
    Health,
    HealthState,
    Info,
    Inspection,
    Isolation,
    Json,
    LeaseRef,
    NativeTtl,
    Owned,
    Place,
    Problem,
    ReleaseMode,
    Renewal,
    RunResult,
    Sandbox,
    SandboxGoneError,
    SandboxState,
    Settled,
    ShellProvider,
    Started,
    Suspend,
    Target,
    UnavailableError,
    Validation,
    run_here,
)
from leasehold_fake_plugin.sandbox import Directory, age_s, sandboxes

KEY: Final = "fake_plugin"
VERSION: Final = "0.1.0"
DEFAULTS: Final[Json] = {"image": "fake-plugin:latest", "reuse_lease": True, "grace_ms": 250}
SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": {
            "type": "string",
            "minLength": 1,
            "default": DEFAULTS["image"],
            "description": "A free label; recorded, never used.",
        },
        "reuse_lease": {
            "type": "boolean",
            "default": True,
            "description": "Whether the lease may be reused.",
        },
        "grace_ms": {
            "type": "integer",
            "minimum": 0,
            "maximum": 60_000,
            "default": DEFAULTS["grace_ms"],
            "description": "Longest time between TERM and KILL, in milliseconds.",
        },
    },
}
_TOOLS: Final = ("setsid", "mkfifo", "readlink", "dd", "tar")


class FakePlugin(ShellProvider):
    """Sandboxes are directories below ``settings["root"]``."""

    def __init__(self, settings: Mapping[str, Any], *, script: str | None = None) -> None:
        super().__init__(script=script)
        self._root = Path(settings["root"]).absolute()

    def describe(self) -> Info:
        return Info(
            key=KEY,
            version=VERSION,
            capabilities=Capabilities(
                isolation=Isolation.NONE,
                suspend=Suspend.DISK,
                native_ttl=NativeTtl.ABSOLUTE,
            ),
            config_schema=SCHEMA,
        )

    def probe(self, config: Json, *, budget: Budget) -> Health:
        del config
        budget.check()
        missing = [tool for tool in _TOOLS if not shutil.which(tool, path=SAFE_PATH)]
        if missing:
            return Health(
                state=HealthState.UNDETECTED, summary=f"missing programs: {', '.join(missing)}"
            )
        there = next(path for path in (self._root, *self._root.parents) if path.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            return Health(state=HealthState.UNHEALTHY, summary=f"cannot write to {there}")
        return Health(
            state=HealthState.HEALTHY,
            summary="directories on this host, no isolation",
            details={"root": str(self._root)},
        )

    def validate(self, config: Json, *, budget: Budget) -> Validation:
        budget.check()
        problems = [
            Problem(path=key, code="unknown_key", message=f"known are: {', '.join(DEFAULTS)}")
            for key in config
            if key not in DEFAULTS
        ]
        full = {**DEFAULTS, **{key: config[key] for key in DEFAULTS if key in config}}
        image, reuse, grace = full["image"], full["reuse_lease"], full["grace_ms"]
        if not isinstance(image, str) or not image:
            problems.append(
                Problem(path="image", code="type", message="must be a non-empty text")
            )
        if not isinstance(reuse, bool):
            problems.append(Problem(path="reuse_lease", code="type", message="true or false"))
        if isinstance(grace, bool) or not isinstance(grace, int) or not 0 <= grace <= 60_000:  # noqa: PLR2004 - as in SCHEMA
            problems.append(
                Problem(path="grace_ms", code="range", message="a whole number up to 60000")
            )
        return Validation(problems=tuple(problems), config=full if not problems else {})

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
        budget.check()
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = Directory(self._root, lease.id, lease.deployment)
        directory.clear()
        outcome = Acquired.RESUMED if known else Acquired.ADOPTED
        if known:
            self._directory(Target(lease=lease, handle=known, config=config))
        elif directory.label() is None and directory.create(lease, fence=fence, ttl=ttl):
            outcome = Acquired.CREATED
        label = directory.label()
        if label is None and directory.path.exists():
            # A database that was copied has the same ids; what is here is the other's.
            raise UnavailableError(f"{directory.path} is not ours", retryable=False)
        if label is None:
            raise SandboxGoneError(f"the sandbox of lease {lease.id} was removed meanwhile")
        handle = {"v": 1, "incarnation": label["incarnation"]}
        # Also for our own: between the name and now, a newer holder may have come.
        self.seize(
            Target(lease=lease, handle=handle, config=config), fence=fence, budget=budget
        )
        self._extend(directory, ttl)
        return Sandbox(
            sandbox_id=str(directory.path),
            handle=handle,
            outcome=outcome,
            remote_cwd=str(directory.work),
            metadata={
                "provider": KEY,
                "image": config.get("image", DEFAULTS["image"]),
                "reuse_lease": config.get("reuse_lease", DEFAULTS["reuse_lease"]),
            },
        )

    def inspect(self, target: Target, *, budget: Budget) -> Inspection:
        budget.check()
        try:
            left = self._directory(target).expires_in_s()
        except (SandboxGoneError, FileNotFoundError):
            return Inspection(state=SandboxState.GONE)
        label = self._directory(target).label() or {}
        return Inspection(
            # Its commands are dead; its files are not: `acquire` makes it ready again.
            state=SandboxState.READY if left else SandboxState.STOPPED,
            incarnation=label.get("incarnation"),
            expires_in_s=left,
        )

    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        self.seize(target, fence=fence, budget=budget)
        directory = self._directory(target)
        if not directory.expires_in_s() and not directory.is_awaited():
            raise SandboxGoneError(
                f"the sandbox of lease {target.lease.id} has ended by itself"
            )
        self._extend(directory, ttl)
        return Renewal(expires_in_s=ttl.total_seconds(), enforced_by=NativeTtl.ABSOLUTE)

    def release(self, target: Target, *, fence: int, mode: ReleaseMode, budget: Budget) -> None:
        if mode is ReleaseMode.KEEP:
            self.seize(target, fence=fence, budget=budget)
            return
        try:
            self.end_all(target, fence=fence, budget=budget)
        except SandboxGoneError:
            if mode is ReleaseMode.SUSPEND:
                raise
        if mode is ReleaseMode.DESTROY:
            directory = Directory(self._root, target.lease.id, target.lease.deployment)
            label = directory.label()
            wanted = target.handle.get("incarnation")
            if label is None and directory.is_anothers():
                return
            if label is None or wanted in (None, label["incarnation"]):
                directory.remove()

    def list_owned(self, deployment: str, *, config: Json, budget: Budget) -> Iterator[Owned]:
        del config
        for directory, label in sandboxes(self._root):
            budget.check()
            if label["deployment"] != deployment:
                continue
            try:
                fence = directory.highest_fence()
            except FileNotFoundError:
                continue
            yield Owned(
                handle={"v": 1, "incarnation": label["incarnation"]},
                lease_id=label["lease_id"],
                lease_number=label["lease_number"],
                fence=fence,
                age_s=age_s(label),
                sandbox_id=str(directory.path),
            )

    def run(
        self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
    ) -> RunResult:
        self._directory(target)
        return run_here(argv, stdin=stdin, budget=budget)

    def place(self, target: Target) -> Place:
        directory = Directory(self._root, target.lease.id, target.lease.deployment)
        work = str(directory.work)
        return Place(
            control=str(directory.control),
            cwd=work,
            root=work,
            env={
                "PATH": SAFE_PATH,
                "HOME": work,
                "LANG": "C.UTF-8",
                "TMPDIR": str(directory.path / "tmp"),
            },
        )

    def start(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        command: Command,
        budget: Budget,
    ) -> Started:
        quick = Command(
            argv=command.argv,
            cwd=command.cwd,
            env=command.env,
            stdin=command.stdin,
            timeout=command.timeout,
            grace=min(command.grace, _grace(target)),
            output_cap_bytes=command.output_cap_bytes,
        )
        return super().start(
            target, fence=fence, execution_id=execution_id, command=quick, budget=budget
        )

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
        return super().cancel(
            target,
            fence=fence,
            execution_id=execution_id,
            handle=handle,
            grace=min(grace, _grace(target)),
            budget=budget,
        )

    def _directory(self, target: Target) -> Directory:
        """Find the sandbox; `SandboxGoneError` if it is gone, or not this incarnation of it."""
        directory = Directory(self._root, target.lease.id, target.lease.deployment)
        label = directory.label()
        if label is None or target.handle.get("incarnation", label["incarnation"]) != label.get(
            "incarnation"
        ):
            raise SandboxGoneError(f"there is no sandbox of lease {target.lease.id}")
        return directory

    def _extend(self, directory: Directory, ttl: timedelta) -> None:
        try:
            directory.set_deadline(ttl)
        except FileNotFoundError as error:
            raise SandboxGoneError(f"{directory.path} is gone") from error


def _grace(target: Target) -> timedelta:
    return timedelta(milliseconds=target.config.get("grace_ms", DEFAULTS["grace_ms"]))
