"""
`fake`: a provider whose sandboxes and commands are files and stamps on the clock.

For tests, the simulator and benchmarks: deterministic, scriptable (`World.script`), fast, and
as durable as a real one, since its world is a directory (`fake_world`). The words of a command
are in `fake_commands`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from posixpath import join, normpath
from typing import Any, BinaryIO, Final

from leasehold.errors import (
    CapacityError,
    ConfigRejectedError,
    SandboxGoneError,
    UnavailableError,
)
from leasehold.provider import contract as c
from leasehold.provider import fake_executions as runs
from leasehold.provider import fake_files
from leasehold.provider.budget import Budget
from leasehold.provider.fake_world import Meeting, World, load, publish
from leasehold.provider.schema import check_schema
from leasehold.provider.supervisor import check_command
from leasehold.seams import effect

VERSION: Final = "1"
_CWD: Final = "/work"
SCHEMA: Final[c.Json] = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "minLength": 1, "default": "ubuntu:24.04"},
        "reuse_lease": {"type": "boolean", "default": True},
    },
    "additionalProperties": False,
}


def make(settings: Mapping[str, Any]) -> "FakeProvider":
    """Return the provider of the world in ``settings["root"]``."""
    return FakeProvider(World(settings["root"]))


class FakeProvider(c.Provider):
    """The fake; any number of processes may hold one on the same world."""

    def __init__(self, world: World, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.world = world
        self._sleep = sleep

    def describe(self) -> c.Info:
        capabilities = c.Capabilities(
            isolation=c.Isolation.NONE,
            suspend=c.Suspend.DISK,
            native_ttl=c.NativeTtl.ABSOLUTE,
            containment=c.Containment.TREE,
            network=frozenset({c.Network.NONE}),
            host_bound=False,
        )
        return c.Info(
            key="fake", version=VERSION, capabilities=capabilities, config_schema=SCHEMA
        )

    def probe(self, config: c.Json, *, budget: Budget) -> c.Health:
        with self._met("probe"):
            return c.Health(
                state=c.HealthState.HEALTHY,
                summary="the fake is always there",
                capacity=self.world.capacity(),
            )

    def validate(self, config: c.Json, *, budget: Budget) -> c.Validation:
        with self._met("validate"):
            return check_schema(SCHEMA, config)

    def acquire(
        self,
        lease: c.LeaseRef,
        config: c.Json,
        *,
        known: c.Handle | None,
        ttl: timedelta,
        fence: int,
        budget: Budget,
    ) -> c.Sandbox:
        with self._met("acquire"):
            budget.check()
            if known is not None:
                outcome = self._ready(self.world.open(lease.id, known), ttl, fence)
            elif self.world.exists(lease.id):
                outcome = self._adopt(lease, ttl, fence)
            else:
                outcome = self._create(lease, config, ttl, fence)
            incarnation = self.world.incarnation(lease.id)
            if incarnation is None:
                raise SandboxGoneError(f"sandbox of lease {lease.id} was removed meanwhile")
            return c.Sandbox(
                sandbox_id=f"sandbox://fake/{lease.id}",
                handle={"v": 1, "incarnation": incarnation},
                outcome=outcome,
                remote_cwd=_CWD,
                metadata={"image": config.get("image")},
            )

    def _create(
        self, lease: c.LeaseRef, config: c.Json, ttl: timedelta, fence: int
    ) -> c.Acquired:
        capacity = self.world.capacity()
        if capacity is not None and self.world.count() >= capacity:
            raise CapacityError(f"{capacity} sandboxes are all there is room for")
        label = {
            "lease": lease.id,
            "number": lease.number,
            "deployment": lease.deployment,
            "made": self.world.now(),
            "image": config.get("image"),
        }
        if self.world.create(lease.id, label, fence=fence, ttl_s=ttl.total_seconds()):
            # Between the name and now a newer holder may have come.
            self.world.install(self.world.open(lease.id), fence)
            return c.Acquired.CREATED
        return self._adopt(lease, ttl, fence)

    def _adopt(self, lease: c.LeaseRef, ttl: timedelta, fence: int) -> c.Acquired:
        box = self.world.open(lease.id)
        _check_ours(box, lease)
        self._ready(box, ttl, fence)
        return c.Acquired.ADOPTED

    def _ready(self, box: Path, ttl: timedelta, fence: int) -> c.Acquired:
        self.world.install(box, fence)
        with effect("fake:resume"):
            (box / "paused").unlink(missing_ok=True)
        self.world.push_on(box, ttl.total_seconds())
        return c.Acquired.RESUMED

    def seize(self, target: c.Target, *, fence: int, budget: Budget) -> None:
        with self._met("seize"):
            self.world.install(self.world.open(target.lease.id, target.handle), fence)

    def inspect(self, target: c.Target, *, budget: Budget) -> c.Inspection:
        with self._met("inspect"):
            try:
                box = self.world.open(target.lease.id, target.handle)
            except SandboxGoneError:
                return c.Inspection(state=c.SandboxState.GONE)
            paused = (box / "paused").exists()
            deadline = load(box / "deadline") or 0.0
            return c.Inspection(
                state=c.SandboxState.STOPPED if paused else c.SandboxState.READY,
                incarnation=self.world.incarnation(target.lease.id),
                expires_in_s=max(0.0, deadline - self.world.now()),
            )

    def renew(
        self,
        target: c.Target,
        *,
        fence: int,
        ttl: timedelta,
        budget: Budget,
    ) -> c.Renewal:
        with self._met("renew"):
            box = self.world.open(target.lease.id, target.handle)
            self.world.install(box, fence)
            self.world.push_on(box, ttl.total_seconds())
            return c.Renewal(expires_in_s=ttl.total_seconds(), enforced_by=c.NativeTtl.ABSOLUTE)

    def release(
        self,
        target: c.Target,
        *,
        fence: int,
        mode: c.ReleaseMode,
        budget: Budget,
    ) -> None:
        with self._met("release"):
            if mode is c.ReleaseMode.DESTROY:
                self._destroy(target, fence)
                return
            box = self.world.open(target.lease.id, target.handle)
            self.world.install(box, fence)
            if mode is c.ReleaseMode.SUSPEND:
                with effect("fake:suspend"):
                    publish(box / "paused", fence)
                runs.end_all(self.world, box)

    def _destroy(self, target: c.Target, fence: int) -> None:
        with suppress(SandboxGoneError):
            box = self.world.open(target.lease.id, target.handle)
            _check_ours(box, target.lease)
            self.world.install(box, fence)
        incarnation = self.world.incarnation(target.lease.id)
        if incarnation is None or target.handle.get("incarnation", incarnation) == incarnation:
            self.world.remove(target.lease.id)

    def list_owned(
        self,
        deployment: str,
        *,
        config: c.Json,
        budget: Budget,
    ) -> Iterator[c.Owned]:
        with self._met("list_owned"):
            found = list(self.world.labels())
        for box, label in found:
            incarnation = self.world.incarnation(label["lease"])
            if label["deployment"] == deployment and incarnation:
                yield c.Owned(
                    handle={"v": 1, "incarnation": incarnation},
                    lease_id=label["lease"],
                    lease_number=label["number"],
                    fence=self.world.fence(box),
                    age_s=self.world.now() - label["made"],
                    sandbox_id=f"sandbox://fake/{label['lease']}",
                )

    def start(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        command: c.Command,
        budget: Budget,
    ) -> c.Started:
        with self._met("start"):
            check_command(command)
            if not f"{normpath(join(_CWD, command.cwd or '.'))}/".startswith(f"{_CWD}/"):
                raise ConfigRejectedError("cwd: is outside of the sandbox")
            box = self.world.open(target.lease.id, target.handle)
            self.world.install(box, fence)
            if (box / "paused").exists():
                raise UnavailableError("the sandbox is suspended")
            outcome = runs.start(self.world, box, execution_id, command, fence=fence)
            return c.Started(outcome=outcome, handle={})

    def poll(
        self,
        items: Sequence[c.PollItem],
        *,
        limit_bytes: int,
        budget: Budget,
    ) -> Sequence[c.Polled]:
        with self._met("poll"):
            return [runs.look(self.world, item, limit_bytes) for item in items]

    def settle(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        budget: Budget,
    ) -> c.Settled:
        with self._met("settle"):
            box = self.world.open(target.lease.id, target.handle)
            return runs.end(self.world, box, execution_id, fence=fence, cause=None)

    def cancel(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        grace: timedelta,
        budget: Budget,
    ) -> c.Settled:
        with self._met("cancel"):
            box = self.world.open(target.lease.id, target.handle)
            return runs.end(
                self.world, box, execution_id, fence=fence, cause=c.ExitCause.CANCELLED
            )

    def read(
        self,
        target: c.Target,
        *,
        execution_id: str,
        handle: c.Handle,
        stream: c.Stream,
        offset: int,
        limit_bytes: int,
        budget: Budget,
    ) -> c.Chunk:
        with self._met("read"):
            box = self.world.open(target.lease.id, target.handle)
            return runs.read(
                self.world, box, execution_id, stream, offset=offset, limit=limit_bytes
            )

    def forget(
        self,
        target: c.Target,
        *,
        fence: int,
        execution_id: str,
        handle: c.Handle,
        budget: Budget,
    ) -> None:
        """Nothing to free: output is computed."""
        with self._met("forget"):
            self.world.install(self.world.open(target.lease.id, target.handle), fence)

    def put(
        self,
        target: c.Target,
        path: str,
        source: BinaryIO,
        *,
        fence: int,
        tree: bool,
        mode: int,
        budget: Budget,
    ) -> None:
        with self._met("put"):
            box = self.world.open(target.lease.id, target.handle)

            def still() -> None:
                self.world.install(box, fence)

            still()
            fake_files.put(box, path, source, tree=tree, mode=mode, still=still)

    def get(
        self, target: c.Target, path: str, *, tree: bool, budget: Budget
    ) -> Iterator[bytes]:
        with self._met("get"):
            box = self.world.open(target.lease.id, target.handle)
            return fake_files.get(box, path, tree=tree)

    def _met(self, method: str) -> "Meeting":
        return Meeting(self.world.next_fault(method), self._sleep)


def _check_ours(box: Path, lease: c.LeaseRef) -> None:
    """Refuse a sandbox of the same lease id in another deployment: a copied database."""
    label = load(box / "label")
    if label is not None and label["deployment"] != lease.deployment:
        raise UnavailableError(f"{lease.id} is another deployment's", retryable=False)
