"""One sandbox of `fake_plugin` on this host, and the questions that tests ask about it."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    LeaseRef,
    Polled,
    PollItem,
    RunResult,
    Settled,
    Started,
    Target,
    UnavailableError,
    run_here,
    supervisor,
)
from leasehold_fake_plugin.provider import FakePlugin

T = TypeVar("T")
LEASE = LeaseRef(id="lease-1", number=1, deployment="tests")
TTL = timedelta(minutes=10)
WAIT_S = 15.0


def until(look: Callable[[], T | None], *, within_s: float = WAIT_S) -> T:
    """Wait for a condition; the only pause in these tests."""
    end = time.monotonic() + within_s
    while True:
        if (found := look()) is not None and found is not False:
            return found
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def budget(seconds: float = 30) -> Budget:
    return Budget(seconds)


class Grouped(FakePlugin):
    """The plugin, with a cgroup for its executions if a test gives it one."""

    group: Path | None = None

    def cgroup(self, target: Target, execution_id: str) -> str | None:
        return str(self.group) if self.group else None


def in_shell(root: Path, shell: str) -> FakePlugin:
    """Return the plugin below `root` with its supervisor under `dash`, `bash` or `busybox`."""
    found = shutil.which(shell)
    if not found:
        pytest.skip(f"no {shell} on this machine")
    program, path = found, "/usr/local/bin:/usr/bin:/bin"
    if shell == "busybox":
        applets = root / "applets"
        applets.mkdir()
        run_here([found, "--install", "-s", str(applets)], stdin=b"", budget=budget())
        program, path = str(applets / "sh"), str(applets)
    text = f"PATH={path}\n" + supervisor.script().replace("/bin/sh", program)

    class Other(FakePlugin):
        def run(
            self, target: Target, argv: Sequence[str], *, stdin: bytes, budget: Budget
        ) -> RunResult:
            return run_here([program, *argv[1:]], stdin=stdin, budget=budget)

    return Other({"root": str(root / "sandboxes")}, script=text)


class Bench:
    """A sandbox, made by a whole script, used through any script."""

    def __init__(self, root: Path, *, config: Mapping[str, object] | None = None) -> None:
        self.root = root
        self.outside = root / "outside"
        self.config = dict(config or {})
        self.whole = FakePlugin({"root": str(root / "sandboxes")})
        sandbox = self.whole.acquire(
            LEASE, self.config, known=None, ttl=TTL, fence=1, budget=budget()
        )
        self.target = Target(lease=LEASE, handle=sandbox.handle, config=self.config)
        self.path = Path(sandbox.sandbox_id)
        self.control = self.path / "control"

    def through(self, script: str) -> Grouped:
        return Grouped({"root": str(self.root / "sandboxes")}, script=script)

    def start(
        self, command: Command, *, fence: int = 1, id_: str = "x1", by: FakePlugin | None = None
    ) -> Started:
        return (by or self.whole).start(
            self.target, fence=fence, execution_id=id_, command=command, budget=budget()
        )

    def poll(self, *, id_: str = "x1", out: int = 0, err: int = 0) -> Polled:
        item = PollItem(
            target=self.target,
            execution_id=id_,
            handle={},
            stdout_offset=out,
            stderr_offset=err,
        )
        return self.whole.poll([item], limit_bytes=1 << 25, budget=budget())[0]

    def ended(self, *, id_: str = "x1") -> Polled:
        """Wait for the exit; fails at once on an error or a lost supervisor."""

        def look() -> Polled | None:
            polled = self.poll(id_=id_)
            assert polled.error is None, polled.error
            assert polled.state is not ExecutionState.UNCLEAR
            return polled if polled.exit else None

        return until(look)

    def run(self, *argv: str, id_: str = "x1", env: Mapping[str, str] | None = None) -> Polled:
        self.start(Command(argv=argv, env=env or {}), id_=id_)
        return self.ended(id_=id_)

    def settle(
        self, *, fence: int = 1, id_: str = "x1", by: FakePlugin | None = None
    ) -> Settled:
        """Settle, waiting while the command demonstrably runs."""

        def look() -> Settled | None:
            try:
                return (by or self.whole).settle(
                    self.target, fence=fence, execution_id=id_, handle={}, budget=budget()
                )
            except UnavailableError as error:
                if "runs under its supervisor" in str(error):
                    return None
                raise

        return until(look)

    def cancel(
        self,
        *,
        fence: int = 1,
        id_: str = "x1",
        grace_s: float = 0.2,
        by: FakePlugin | None = None,
    ) -> Settled:
        return (by or self.whole).cancel(
            self.target,
            fence=fence,
            execution_id=id_,
            handle={},
            grace=timedelta(seconds=grace_s),
            budget=budget(),
        )

    def counting(self, *more: str) -> Command:
        """A command that says outside of the sandbox that it was started."""
        body = 'echo started >>"$0"; ' + ("; ".join(more) or "echo done")
        return Command(argv=("sh", "-c", body, str(self.outside)))

    def starts(self) -> int:
        return len(self.outside.read_text().splitlines()) if self.outside.exists() else 0

    def processes(self) -> list[str]:
        """Find what lives of this sandbox: by words, variables, or the recorded sessions."""
        sessions = set()
        for record in self.control.glob("x/*/super"):
            sessions.add(record.read_text().split()[0])
        for record in self.control.glob("x/*/child"):
            sessions.add(record.read_text().split()[0])
        needle = os.fsencode(self.path)
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                stat = (proc / "stat").read_bytes().rpartition(b")")[2]
                words = stat.decode().split()
                text = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            except (OSError, ValueError):
                continue
            if words[0] not in "ZX" and (needle in text or words[3] in sessions):
                found.append(f"{proc.name} {text[:200]!r}")
        return found

    def assert_quiet(self) -> None:
        until(lambda: not self.processes() or None)


def lines_named(name: str) -> list[int]:
    return [
        line.index for line in supervisor.effect_lines(supervisor.script()) if line.name == name
    ]
