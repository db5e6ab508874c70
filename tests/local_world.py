"""One sandbox of the local provider under test, and the proof that nothing of it is left."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    LeaseRef,
    Polled,
    PollItem,
    ReleaseMode,
    Settled,
    Started,
    Target,
)
from leasehold_local.config import Ground
from leasehold_local.provider import LocalProvider, look_around

DEPLOYMENT = "deployment-1"
LIMIT_S = 20.0
TTL = timedelta(minutes=10)
BARE = Ground(tree=None, memory=None, pids=None)
"""A host without any cgroup."""


def budget() -> Budget:
    return Budget(LIMIT_S)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, not for a time."""
    pause, limit = threading.Event(), Budget(LIMIT_S)
    while not condition():
        assert limit.left_s() > 0, f"waited in vain until {what}"
        pause.wait(0.005)


def lease(name: str = "lease-1", number: int = 1) -> LeaseRef:
    return LeaseRef(id=name, number=number, deployment=DEPLOYMENT)


def provider(root: Path, **more: Any) -> LocalProvider:
    return LocalProvider(root=root, deployment=DEPLOYMENT, host_id="host-1", **more)


def processes_of(root: Path) -> list[str]:
    """Return the command lines of all processes that were given a path below `root`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if str(root).encode() in (folder / "environ").read_bytes():
                line = (folder / "cmdline").read_bytes()
                found.append(f"{folder.name} {line!r}")
        except OSError:
            continue
    return found


@dataclass
class World:
    root: Path
    provider: LocalProvider
    config: dict[str, Any] = field(default_factory=dict)
    fence: int = 1
    target: Target | None = None

    @property
    def path(self) -> Path:
        return self.root / "lease-lease-1"

    def acquire(self, ttl: timedelta = TTL) -> Target:
        sandbox = self.provider.acquire(
            lease(), self.config, known=None, ttl=ttl, fence=self.fence, budget=budget()
        )
        self.target = Target(lease=lease(), handle=sandbox.handle, config=self.config)
        return self.target

    def meant(self) -> Target:
        return self.target or self.acquire()

    def start(self, execution_id: str, *argv: str, **more: Any) -> Started:
        return self.provider.start(
            self.meant(),
            fence=self.fence,
            execution_id=execution_id,
            command=Command(argv=argv, **more),
            budget=budget(),
        )

    def look(self, execution_id: str, limit: int = 1_000_000) -> Polled:
        item = PollItem(target=self.meant(), execution_id=execution_id, handle={})
        return self.provider.poll([item], limit_bytes=limit, budget=budget())[0]

    def wait(self, execution_id: str) -> Polled:
        until(
            lambda: self.look(execution_id).state is ExecutionState.EXITED,
            f"{execution_id} has exited",
        )
        return self.look(execution_id)

    def run(self, execution_id: str, *argv: str, **more: Any) -> Polled:
        self.start(execution_id, *argv, **more)
        return self.wait(execution_id)

    def wait_running(self, execution_id: str) -> None:
        until(
            lambda: self.look(execution_id).state is ExecutionState.RUNNING,
            f"{execution_id} runs",
        )

    def wait_output(self, execution_id: str, text: bytes) -> None:
        until(lambda: text in self.look(execution_id).stdout, f"{execution_id} said {text!r}")

    def settle(self, execution_id: str) -> Settled:
        return self.provider.settle(
            self.meant(),
            fence=self.fence,
            execution_id=execution_id,
            handle={},
            budget=budget(),
        )

    def cancel(self, execution_id: str, grace_s: float = 0.0) -> Settled:
        return self.provider.cancel(
            self.meant(),
            fence=self.fence,
            execution_id=execution_id,
            handle={},
            grace=timedelta(seconds=grace_s),
            budget=budget(),
        )

    def destroy(self) -> None:
        self.provider.release(
            Target(lease=lease(), handle={}, config=self.config),
            fence=max(self.fence, 1_000),
            mode=ReleaseMode.DESTROY,
            budget=budget(),
        )

    def go(self, execution_id: str) -> list[str]:
        return str((self.path / "ctl/x" / execution_id / "go").readlink()).split()

    def end(self) -> None:
        """Destroy what is there, then prove that nothing is left."""
        self.destroy()
        self.provider.close()
        until(
            lambda: not processes_of(self.root),
            f"no process is left: {processes_of(self.root)}",
        )
        left = [entry.name for entry in self.root.iterdir()] if self.root.exists() else []
        assert left == [], "the root is empty again"
        tree = self.provider._ground.tree
        if tree is not None:
            assert not Path(tree).exists(), "no cgroup of ours is left"


def grounds() -> list[Any]:
    """Return this host as it is, and as it would be without cgroups."""
    return [None, BARE]


def has_tree() -> bool:
    return look_around("leasehold-test").tree is not None
