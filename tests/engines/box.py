"""One sandbox of the docker provider under test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

from engines.daemons import IMAGE, Running
from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    Exit,
    LeaseRef,
    Polled,
    PollItem,
    ReleaseMode,
    Sandbox,
    Settled,
    Target,
)
from leasehold_docker.engine import Engine
from leasehold_docker.provider import DockerProvider

DEPLOYMENT = "deployment-1"
LIMIT_S = 60.0
TTL = timedelta(minutes=10)


def budget() -> Budget:
    return Budget(LIMIT_S)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, not for a time."""
    pause, limit = Event(), Budget(LIMIT_S)
    while not condition():
        assert limit.left_s() > 0, f"waited in vain until {what}"
        pause.wait(0.01)


@dataclass
class Box:
    engine: Running
    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    lease: LeaseRef = field(
        default_factory=lambda: LeaseRef(id="lease-1", number=7, deployment=DEPLOYMENT)
    )
    fence: int = 1
    sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        self.config = {"image": IMAGE, **self.config}
        self.provider = self.another()

    def another(self) -> DockerProvider:
        """Return the plugin as another process would have it."""
        return DockerProvider(
            root=str(self.root), engine=Engine(f"unix://{self.engine.socket}")
        )

    def acquire(self, *, ttl: timedelta = TTL, resume: bool = False) -> Sandbox:
        known = self.sandbox.handle if resume and self.sandbox else None
        self.sandbox = self.provider.acquire(
            self.lease, self.config, known=known, ttl=ttl, fence=self.fence, budget=budget()
        )
        return self.sandbox

    @property
    def target(self) -> Target:
        handle = self.sandbox.handle if self.sandbox else {}
        return Target(lease=self.lease, handle=handle, config=self.config)

    @property
    def name(self) -> str:
        assert self.sandbox is not None
        return str(self.sandbox.metadata["container"])

    @property
    def directory(self) -> Path:
        return self.root / f"sb-{self.name.removeprefix('leasehold-')}"

    def seen(self) -> dict[str, Any]:
        """Return what the engine tells of the container."""
        api = self.engine.api()
        try:
            return dict(api.inspect_container(self.name))
        finally:
            api.close()

    def start(self, name: str, script: str, **more: Any) -> None:
        command = Command(argv=("sh", "-c", script), **more)
        self.provider.start(
            self.target, fence=self.fence, execution_id=name, command=command, budget=budget()
        )

    def look(self, name: str) -> Polled:
        item = PollItem(target=self.target, execution_id=name, handle={})
        polled = self.provider.poll([item], limit_bytes=1_000_000, budget=budget())[0]
        if polled.error is not None:
            raise polled.error
        return polled

    def wait(self, name: str) -> Polled:
        until(lambda: self.look(name).state is ExecutionState.EXITED, f"{name} has ended")
        return self.look(name)

    def said(self, name: str, text: bytes) -> None:
        until(lambda: text in self.look(name).stdout, f"{name} said {text!r}")

    def run(self, script: str, **more: Any) -> tuple[Exit, str]:
        """Run a script to its end; return its exit and all it said."""
        name = f"x{len(list((self.directory / 'ctl/x').iterdir()))}"
        self.start(name, script, **more)
        polled = self.wait(name)
        assert polled.exit is not None
        return polled.exit, (polled.stdout + polled.stderr).decode()

    def cancel(self, name: str, grace_s: float = 0) -> Settled:
        return self.provider.cancel(
            self.target, fence=self.fence, execution_id=name, handle={},
            grace=timedelta(seconds=grace_s), budget=budget(),
        )  # fmt: skip

    def settle(self, name: str) -> Settled:
        return self.provider.settle(
            self.target, fence=self.fence, execution_id=name, handle={}, budget=budget()
        )

    def release(self, mode: ReleaseMode = ReleaseMode.DESTROY) -> None:
        self.provider.release(self.target, fence=self.fence, mode=mode, budget=budget())

    def end(self) -> None:
        """Destroy what is there; then nothing of it is left."""
        self.fence = 1_000
        self.provider.release(
            Target(lease=self.lease, handle={}, config=self.config),
            fence=self.fence, mode=ReleaseMode.DESTROY, budget=budget(),
        )  # fmt: skip
        assert list(self.provider.list_owned(DEPLOYMENT, config={}, budget=budget())) == []
        self.provider.close()
        assert not self.root.exists() or list(self.root.iterdir()) == []
