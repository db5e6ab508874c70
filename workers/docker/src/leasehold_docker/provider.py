"""
The provider: containers from `containers`, commands through the shell supervisor on the host.

Who is authoritative? For the sandbox, its directory (`layout`) and the engine's own word on the
container that carries its labels. For a command, the supervisor's files, on the host.

The supervisor is the contract's own (`ShellProvider`), run on the host and not in the
container: there no command can see its directory, forge its records or kill it, no limit of the
sandbox stops it, and an engine that restarts does not disturb it. `stand_in.py` ties it to the
process in the container, `starting` says in which order, `groups` how the whole tree is
reached.

What happens if we die here? Ids and names were chosen before; directory, container, pipes and
claim are each made whole or found again by the next call. See the essays of these modules.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import BinaryIO, Final

from leasehold.provider import (
    Acquired,
    Budget,
    Chunk,
    Command,
    Handle,
    Health,
    Info,
    Inspection,
    Json,
    LeaseRef,
    NativeTtl,
    Owned,
    Place,
    Polled,
    PollItem,
    ProviderError,
    ReleaseMode,
    Renewal,
    RunResult,
    Sandbox,
    SandboxGoneError,
    SandboxState,
    ShellProvider,
    Started,
    StartOutcome,
    Stream,
    Target,
    Validation,
    run_here,
)
from leasehold.provider.supervisor import check_command, checked_id
from leasehold.provider.way_out import listing

from leasehold_docker import config as configs
from leasehold_docker import egress, groups, looking, probing, starting
from leasehold_docker.containers import Containers, Running
from leasehold_docker.engine import Engine
from leasehold_docker.layout import Directory, Label, directories, name_of, new_label
from leasehold_docker.transfer import Cage
from leasehold_docker.watching import ExitWatch

KEY: Final = "docker"


class DockerProvider(ShellProvider):
    """Containers of one engine; their directories are below `root`."""

    def __init__(self, *, root: str, engine: Engine, script: str | None = None) -> None:
        super().__init__(script=script)
        self._root, self._engine = root, engine
        self._containers = Containers(engine)
        self._watch = ExitWatch()

    def describe(self) -> Info:
        return Info(
            key=KEY,
            version=configs.plugin_version(),
            capabilities=configs.CAPABILITIES,
            config_schema=configs.SCHEMA,
        )

    def probe(self, config: Json, *, budget: Budget) -> Health:
        del config
        return probing.probe(self._engine, self._root, budget)

    def validate(self, config: Json, *, budget: Budget) -> Validation:
        return configs.check(config, budget=budget)

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
        full = configs.full(config, budget)
        directory = self._directory(lease)
        outcome = Acquired.RESUMED if known else Acquired.ADOPTED
        label = directory.label()
        if known:
            label = self._meant(Target(lease=lease, handle=known, config=config))[1]
        elif label is None:
            directory.clear()
            label = new_label(lease)
            if directory.create(label, owner=configs.owner(full), fence=fence, ttl=ttl):
                outcome = Acquired.CREATED
            label = directory.label()
        if label is None:
            raise SandboxGoneError(f"the sandbox of lease {lease.id} was removed meanwhile")
        # Also for our own: between the name and now, a newer holder may have come.
        directory.install_fence(fence)
        # Before the start: process 1 reads it at once.
        directory.set_deadline(ttl)
        running = self._containers.make_ready(
            directory, label, lease, full, budget, known=known is not None
        )
        egress.ensure(directory, running, full, budget)
        directory.set_deadline(ttl)
        return Sandbox(
            sandbox_id=running.container_id[:12],
            handle={"v": 1, "incarnation": label.incarnation},
            outcome=outcome,
            remote_cwd=starting.WORK,
            metadata={
                "provider": KEY,
                "image": full["image"],
                "container": self._containers.name(directory),
                "network": full["network"],
                "reuse_lease": full["reuse_lease"],
            },
        )

    def seize(self, target: Target, *, fence: int, budget: Budget) -> None:
        budget.check()
        directory, _ = self._meant(target)
        directory.install_fence(fence, prune=True)

    def inspect(self, target: Target, *, budget: Budget) -> Inspection:
        gone = Inspection(state=SandboxState.GONE)
        try:
            directory, label = self._meant(target)
            left = directory.seconds_left()
        except SandboxGoneError:
            return gone
        seen = self._containers.find(directory, label, budget)
        if seen is None:
            return gone
        state = SandboxState.READY if seen["State"]["Running"] else SandboxState.STOPPED
        if seen["State"].get("Paused"):
            state = SandboxState.PAUSED
        if not left:
            # Its commands are ended, its container is about to; `acquire` makes it ready again.
            state = SandboxState.STOPPED
        return Inspection(state=state, incarnation=label.incarnation, expires_in_s=left)

    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        budget.check()
        directory, _ = self._meant(target)
        directory.install_fence(fence)
        # The host's own look, without the engine: a beat renews many.
        running = self._containers.running(directory)
        if not directory.seconds_left() or running is None:
            raise SandboxGoneError(f"the sandbox of lease {target.lease.id} has ended")
        directory.set_deadline(ttl)
        egress.ensure(directory, running, target.config, budget)
        return Renewal(expires_in_s=ttl.total_seconds(), enforced_by=NativeTtl.ABSOLUTE)

    def release(self, target: Target, *, fence: int, mode: ReleaseMode, budget: Budget) -> None:
        budget.check()
        if mode is ReleaseMode.DESTROY:
            self._destroy(target, fence, budget)
            return
        directory, label = self._meant(target)
        directory.install_fence(fence)
        if mode is ReleaseMode.SUSPEND:
            self.end_all(target, fence=fence, budget=budget)
            self._containers.stop(directory, label, budget)

    def _destroy(self, target: Target, fence: int, budget: Budget) -> None:
        directory = self._directory(target.lease)
        deployment, lease_id = target.lease.deployment, target.lease.id
        incarnation = target.handle.get("incarnation")
        label = directory.label()
        if label is not None and incarnation in (None, label.incarnation):
            # It may vanish between two calls, if somebody else destroys it too.
            with suppress(SandboxGoneError):
                directory.install_fence(fence)
                self.end_all(target, fence=fence, budget=budget)
            self._containers.remove_all(deployment, lease_id, label.incarnation, budget)
            egress.end(directory, budget)
            directory.remove()
        elif label is None:
            # The directory is gone, or was never made; a container may be left all the same.
            self._containers.remove_all(deployment, lease_id, incarnation, budget)
            directory.clear(everything=True)

    def list_owned(self, deployment: str, *, config: Json, budget: Budget) -> Iterator[Owned]:
        del config
        listed = set()
        for directory, label in directories(self._root):
            budget.check()
            if label.deployment == deployment:
                listed.add(label.incarnation)
                yield Owned(
                    handle={"v": 1, "incarnation": label.incarnation},
                    lease_id=label.lease_id,
                    lease_number=label.lease_number,
                    fence=directory.highest_fence(),
                    age_s=label.age_s(),
                    sandbox_id=self._containers.name(directory),
                )
        for found in self._containers.owned(deployment, budget):
            if found.incarnation not in listed:
                yield Owned(
                    handle={"v": 1, "incarnation": found.incarnation},
                    lease_id=found.lease_id,
                    lease_number=found.lease_number,
                    fence=None,
                    age_s=found.age_s,
                    sandbox_id=found.container_id[:12],
                )

    # ---- commands --------------------------------------------------------------------------

    def run(
        self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
    ) -> RunResult:
        self._meant(target)
        return run_here(argv, stdin=stdin, budget=budget)

    def place(self, target: Target) -> Place:
        # Of the stand-in on the host: where a command starts is the wrapper's business.
        return Place(control=self._directory(target.lease).control, cwd="/", env={})

    def cgroup(self, target: Target, execution_id: str) -> str | None:
        return groups.make(self._running(target).groups, execution_id)

    def start(
        self,
        target: Target,
        *,
        fence: int,
        execution_id: str,
        command: Command,
        budget: Budget,
    ) -> Started:
        checked_id(execution_id)
        check_command(command)
        directory, _ = self._meant(target)
        directory.install_fence(fence)
        if os.path.isdir(directory.execution(execution_id)):
            return starting.claimed(directory.execution(execution_id))
        running = self._running(target)
        made = starting.prepare(directory, execution_id, command.stdin)
        started = None
        try:
            full = configs.full(target.config, budget)
            user = ":".join(map(str, configs.owner(full)))
            self._engine.spawn(running.container_id, made.wrapper, user, budget)
            started = super().start(
                target,
                fence=fence,
                execution_id=execution_id,
                command=starting.stand_in(
                    made,
                    command,
                    group=groups.make(running.groups, execution_id),
                    memory=running.groups.memory,
                    inherited=running.variables,
                    variables=listing.variables(full),
                ),
                budget=budget,
            )
        finally:
            # After an error nobody knows whether the claim is ours: the stand-in may need it.
            lost = started is not None and started.outcome is not StartOutcome.STARTED
            if lost or not os.path.isdir(directory.execution(execution_id)):
                made.drop(running.groups)
        if not lost:
            self._watch.add(execution_id, directory.execution(execution_id))
            starting.clear(directory, running.groups, made)
        return started

    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        known: dict[tuple[str, str, str], Directory | ProviderError] = {}
        asked = []
        for item in items:
            lease = item.target.lease
            key = (lease.deployment, lease.id, str(item.target.handle.get("incarnation")))
            if key not in known:
                try:
                    known[key] = self._meant(item.target)[0]
                except ProviderError as error:
                    known[key] = error
            asked.append((known[key], item))
        return looking.poll(asked, limit_bytes, budget)

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
        directory, _ = self._meant(target)
        return looking.read(directory, execution_id, stream, offset, limit_bytes)

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
        directory, _ = self._meant(target)
        directory.install_fence(fence)
        cage = self._cage(directory, target, budget)
        cage.put(path, source, tree=tree, mode=mode, fence=fence)

    def get(self, target: Target, path: str, *, tree: bool, budget: Budget) -> Iterator[bytes]:
        directory, _ = self._meant(target)
        return self._cage(directory, target, budget).get(path, tree=tree)

    def _cage(self, directory: Directory, target: Target, budget: Budget) -> Cage:
        return Cage(directory, configs.owner(configs.full(target.config, budget)), budget)

    def watch(self, callback: Callable[[str], None]) -> None:
        self._watch.listen(callback)

    def close(self) -> None:
        self._watch.close()
        self._engine.close()

    # ---- finding ---------------------------------------------------------------------------

    def _directory(self, lease: LeaseRef) -> Directory:
        return Directory(self._root, name_of(lease.deployment, lease.id))

    def _meant(self, target: Target) -> tuple[Directory, Label]:
        """Find the sandbox; `SandboxGoneError` if it is gone, or not this incarnation of it."""
        directory = self._directory(target.lease)
        label = directory.label()
        if label is not None and label.lease_id == target.lease.id:
            wanted = target.handle.get("incarnation", label.incarnation)
            if wanted == label.incarnation and label.deployment == target.lease.deployment:
                return directory, label
        raise SandboxGoneError(f"there is no sandbox of lease {target.lease.id}")

    def _running(self, target: Target) -> Running:
        """Return the running container, by the host's knowledge alone."""
        running = self._containers.running(self._directory(target.lease))
        if running is None:
            raise SandboxGoneError(f"the container of lease {target.lease.id} does not run")
        return running
