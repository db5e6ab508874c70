"""
The plugin: the contract's methods, each a few lines around the part that does it.

`sandboxes` makes and removes directories, `executions` starts and ends commands, `looking`
polls and reads, `transfer` moves files, `watching` tells of exits. Nothing is remembered
between two calls except what can be thrown away: the zygote, the watch.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Final

from leasehold.provider import (
    Budget,
    Chunk,
    Command,
    ConfigRejectedError,
    Handle,
    Health,
    HealthState,
    Info,
    Inspection,
    Json,
    LeaseRef,
    NativeTtl,
    Owned,
    Polled,
    PollItem,
    Provider,
    ReleaseMode,
    Renewal,
    Sandbox,
    SandboxGoneError,
    SandboxState,
    Settled,
    Started,
    Stream,
    Target,
    UnavailableError,
    Validation,
)

from leasehold_local import cgroups, layout, transfer
from leasehold_local import config as configs
from leasehold_local.executions import Executions
from leasehold_local.looking import Looking
from leasehold_local.sandboxes import Sandboxes
from leasehold_local.spawner import Spawner
from leasehold_local.watching import ExitWatch

KEY: Final = "local"


class LocalProvider(Provider):
    def __init__(
        self,
        *,
        root: Path,
        deployment: str,
        host_id: str,
        ground: configs.Ground | None = None,
        source: Path | None = None,
    ) -> None:
        """`ground` and `source` are for tests: another host, an instrumented supervisor."""
        self._ground = ground or look_around(self.name_of_groups(deployment, root))
        self._watch = ExitWatch()
        self._sandboxes, self._spawner, self._executions = self._parts(
            str(root), deployment, host_id, source
        )
        self._looking = Looking(self._executions, self._watch)

    @staticmethod
    def name_of_groups(deployment: str, root: Path) -> str:
        mark = hashlib.sha256(f"{deployment}\0{root}".encode()).hexdigest()[:12]
        return f"leasehold-{mark}"

    def _parts(
        self, root: str, deployment: str, host_id: str, source: Path | None
    ) -> tuple[Sandboxes, Spawner, Executions]:
        sandboxes = Sandboxes(root, deployment, host_id, self._ground)
        spawner = Spawner(source)
        return sandboxes, spawner, Executions(sandboxes, spawner, self._watch)

    def describe(self) -> Info:
        return Info(
            key=KEY,
            version=_version(),
            capabilities=self._ground.capabilities(),
            config_schema=configs.SCHEMA,
        )

    def probe(self, config: Json, *, budget: Budget) -> Health:
        del config
        budget.check()
        root = Path(self._sandboxes.root)
        there = next(one for one in (root, *root.parents) if one.exists())
        containment = self._ground.capabilities().containment.value
        details = {"root": str(root), "containment": containment}
        if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
            text = f"{there} is not writable"
            return Health(state=HealthState.UNHEALTHY, summary=text, details=details)
        space = os.statvfs(there)
        if space.f_bavail == 0 or (space.f_files and space.f_favail == 0):
            text = f"no space left below {there}"
            return Health(state=HealthState.UNHEALTHY, summary=text, details=details)
        text = f"host processes below {root}, ended by {containment}"
        return Health(state=HealthState.HEALTHY, summary=text, details=details)

    def validate(self, config: Json, *, budget: Budget) -> Validation:
        budget.check()
        return self._ground.check(config)

    # ---- the sandbox -----------------------------------------------------------------------

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
        checked = self._ground.check(config)
        if not checked.ok:
            problem = checked.problems[0]
            raise ConfigRejectedError(f"{problem.path}: {problem.message}")
        return self._sandboxes.acquire(lease, config, known or None, ttl, fence, budget)

    def seize(self, target: Target, *, fence: int, budget: Budget) -> None:
        budget.check()
        layout.install_fence(self._meant(target), fence)

    def inspect(self, target: Target, *, budget: Budget) -> Inspection:
        budget.check()
        try:
            sandbox = self._meant(target)
        except SandboxGoneError:
            return Inspection(state=SandboxState.GONE)
        label = layout.read_label(sandbox)
        left = layout.seconds_left(sandbox)
        ended = left is not None and left <= 0
        return Inspection(
            state=SandboxState.STOPPED if ended else SandboxState.READY,
            incarnation=label.incarnation if label else None,
            expires_in_s=None if left is None else max(0.0, left),
        )

    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        budget.check()
        sandbox = self._meant(target)
        layout.install_fence(sandbox, fence)
        left = layout.seconds_left(sandbox)
        if left is not None and left <= 0 and not layout.is_awaited(sandbox):
            raise SandboxGoneError(f"the time to live of {sandbox} has ended")
        layout.write_deadline(sandbox, ttl.total_seconds())
        return Renewal(expires_in_s=ttl.total_seconds(), enforced_by=NativeTtl.ABSOLUTE)

    def release(self, target: Target, *, fence: int, mode: ReleaseMode, budget: Budget) -> None:
        if mode is ReleaseMode.DESTROY:
            self._destroy(target, fence, budget)
            return
        sandbox = self._meant(target)
        layout.install_fence(sandbox, fence)
        if mode is ReleaseMode.SUSPEND:
            self._executions.end_all(sandbox, budget)

    def _destroy(self, target: Target, fence: int, budget: Budget) -> None:
        sandbox = self._sandboxes.path(target.lease.id)
        label = layout.read_label(sandbox)
        if label is None:
            self._remove_unlabelled(sandbox)
            return
        if not layout.is_meant(label, target.lease.deployment, target.lease.id, target.handle):
            return
        if layout.has_control(sandbox):
            # It may vanish between two calls, if somebody else destroys it too.
            with contextlib.suppress(SandboxGoneError):
                layout.install_fence(sandbox, fence)
                self._executions.end_all(sandbox, budget)
        self._sandboxes.remove(sandbox, label)
        self._sandboxes.sweep()

    def _remove_unlabelled(self, sandbox: str) -> None:
        """Take away the empty directory that a destroy left; anything else is not ours."""
        try:
            os.rmdir(sandbox)
        except FileNotFoundError:
            return
        except OSError as error:
            text = f"{sandbox} has no label of ours and is not removed: {error.strerror}"
            raise UnavailableError(text) from error

    def list_owned(self, deployment: str, *, config: Json, budget: Budget) -> Iterator[Owned]:
        del config
        for owned in self._sandboxes.owned(deployment):
            budget.check()
            yield owned

    def _meant(self, target: Target) -> str:
        sandbox = self._sandboxes.path(target.lease.id)
        layout.check_incarnation(sandbox, target)
        return sandbox

    # ---- executions ------------------------------------------------------------------------

    def start(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        command: Command,
        budget: Budget,
    ) -> Started:
        return self._executions.start(target, fence, execution_id, command, budget)

    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        return self._looking.poll(items, limit_bytes, budget)

    def settle(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> Settled:
        del handle
        return self._executions.settle(target, fence, execution_id, budget)

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
        del handle
        budget.check()
        return self._looking.read(target, execution_id, stream, offset, limit_bytes)

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
        del handle
        return self._executions.cancel(target, fence, execution_id, grace, budget)

    def forget(
        self, target: Target, *, fence: int, execution_id: str, handle: Handle, budget: Budget
    ) -> None:
        del handle
        budget.check()
        self._executions.forget(target, fence, execution_id)

    # ---- files, exits ----------------------------------------------------------------------

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
        sandbox = self._meant(target)
        owner = self._ground.owner

        def still() -> None:
            layout.install_fence(sandbox, fence)

        still()
        if tree:
            transfer.unpack(sandbox, path, source, budget, still=still, owner=owner)
        else:
            transfer.write(sandbox, path, source, mode, budget, still=still, owner=owner)

    def get(self, target: Target, path: str, *, tree: bool, budget: Budget) -> Iterator[bytes]:
        sandbox = self._meant(target)
        if tree:
            return transfer.pack(sandbox, path, budget)
        return transfer.read(sandbox, path, budget)

    def watch(self, callback: Callable[[str], None]) -> None:
        self._watch.listen(callback)

    def close(self) -> None:
        self._watch.close()
        self._spawner.close()


def look_around(name: str) -> configs.Ground:
    """See which cgroups this host lets us use."""
    return configs.Ground(
        tree=cgroups.find_tree(name),
        memory=cgroups.find_limit(name, "memory"),
        pids=cgroups.find_limit(name, "pids"),
    )


def _version() -> str:
    try:
        return version("leasehold-local")
    except PackageNotFoundError:
        return "0"


def from_settings(settings: Mapping[str, Any]) -> LocalProvider:
    """
    Build the plugin.

    Raises:
        ConfigRejectedError: A setting is missing or the root is not an absolute path.
    """
    missing = [name for name in ("root", "deployment", "host_id") if not settings.get(name)]
    if missing:
        raise ConfigRejectedError(f"the local provider needs {', '.join(missing)}")
    root = Path(settings["root"])
    if not root.is_absolute():
        raise ConfigRejectedError(f"root must be an absolute path, not {root}")
    return LocalProvider(
        root=root, deployment=settings["deployment"], host_id=settings["host_id"]
    )
