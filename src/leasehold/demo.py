"""
``make demo``: real commands in leased sandboxes while every worker is killed with SIGKILL.

It uses the embedded stack as anyone would, in a home of its own that it removes. What it
shows is checked against three witnesses: the rows in SQL, the sandboxes on disk, and the
marks that the commands themselves wrote outside of both. Exit code 0 only if all agree.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from leasehold import bootstrap, log, transport
from leasehold import settings as knobs
from leasehold.domain.lifecycle import EndKind
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.embedded.stack import Stack
from leasehold.errors import LeaseholdError
from leasehold.orchestrator import ending, submit
from leasehold.orchestrator.jobs import Context
from leasehold.store import executions, history, hosts, invariants, leases, moves, runs
from leasehold.store.database import Row

PROVIDER: Final = "local"
KILL_AFTER_S: Final = 1.5
CANCEL_AFTER_S: Final = 3.0
GIVE_UP_S: Final = 60.0
LINES: Final = 24
_SIEVE: Final = """
n = 2_000_000
sieve = bytearray([1]) * (n + 1)
for i in range(2, int(n ** 0.5) + 1):
    if sieve[i]:
        sieve[i * i :: i] = bytes(len(range(i * i, n + 1, i)))
print(sum(sieve) - 2, "primes below", n)
"""


@dataclass(slots=True)
class Case:
    """One command, and what must come of it."""

    name: str
    script: str
    status: str = "succeeded"
    exit_code: int | None = 0
    starts: int = 1
    environment: str = "demo"
    spec: dict[str, Any] = field(default_factory=dict)
    output: bytes | None = None
    after: str | None = None
    cancel: bool = False
    run_id: str = ""
    row: Row = field(default_factory=dict)


def cases(project: Path) -> list[Case]:
    """Return about ten commands worth running."""
    docs = " ".join(f"'{path}'" for path in sorted(project.glob("*.md"))) or "/etc/services"
    lines = b"".join(b"line %d\n" % n for n in range(1, LINES + 1))
    count = f"for i in $(seq 1 {LINES}); do echo line $i; sleep 0.25; done"
    stubborn = "trap '' TERM; sleep 600 & wait; sleep 600"
    return [
        Case("word count", f"cat {docs} | wc -w"),
        Case("prime sieve", f"exec {sys.executable} -c '{_SIEVE}'"),
        Case("long", count, output=lines),
        Case("both streams", "printf 'out\\377'; echo err >&2", output=b"out\xff"),
        Case("fails", "exit 3", "failed", 3),
        Case("not found", "", "failed", 127, starts=0),
        Case("fails once", "test $(wc -l < $MARK) -ge 2", starts=2, spec={"retries": 1}),
        Case("times out", stubborn, "timed_out", None, spec={"timeout_s": 2, "grace_s": 0.5}),
        Case("is cancelled", "sleep 600", "cancelled", None, cancel=True),
        Case("leaves a file", "echo hello > note", environment="demo-reuse"),
        Case(
            "finds the file",
            "cat note",
            environment="demo-reuse",
            output=b"hello\n",
            after="leaves a file",
        ),
    ]


class Demo:
    """One showing, on a stack of its own."""

    def __init__(self, home: Path, console: Console) -> None:
        self.settings = knobs.load(home=home)
        self.marks = home.parent / "marks"
        self.marks.mkdir()
        self.console = console
        self.app = bootstrap.build(self.settings)
        self.context: Context = self.app.context(publish=transport.publisher(self.settings))
        self.cases = cases(Path.cwd())
        self.killed: list[str] = []

    def mark(self, case: Case) -> Path:
        return self.marks / case.name.replace(" ", "-")

    def environments(self) -> None:
        for name, policy in (("demo", "ephemeral"), ("demo-reuse", "reuse_by_environment")):
            spec = {"name": name, "provider": PROVIDER, "policy": policy}
            with self.app.database.write("demo.environment") as tx:
                submit.ensure_environment(tx, parse(EnvironmentSpec, spec), tenant_id="default")

    def submit(self, case: Case) -> None:
        mark = self.mark(case)
        argv = ["/bin/sh", "-c", f'echo "$$" >> "$MARK"\n{case.script}']
        if case.name == "not found":
            argv = ["no-such-command"]
        body = {"commands": [{"argv": argv}], "env": {"MARK": str(mark)}, **case.spec}
        with self.app.database.write("demo.submit") as tx:
            request = submit.Request(spec=parse(RunSpec, body), environment=case.environment)
            row, _ = submit.submit(tx, self.context, request)
        case.run_id = row["id"]

    def kill_workers(self) -> None:
        """Kill every worker process of the host with SIGKILL, steps and beats."""
        with self.app.database.read() as tx:
            workers = hosts.ready_workers(tx)
        for worker in workers:
            os.kill(worker["pid"], signal.SIGKILL)
            self.killed.append(worker["id"])
        pids = ", ".join(str(worker["pid"]) for worker in workers)
        running = sum(1 for case in self.cases if case.run_id and not self.over(case))
        self.console.print(
            f"[bold red]kill -9[/] {pids}: all workers are dead, {running} runs under way"
        )

    def over(self, case: Case) -> bool:
        if not case.row.get("finished_at"):
            with self.app.database.read() as tx:
                case.row = runs.find(tx, case.run_id) or {}
        return bool(case.row.get("finished_at"))

    def play(self, stack: Stack) -> None:
        """Submit everything; kill the workers in the middle; wait for the ends."""
        began = time.monotonic()
        waiting = [case for case in self.cases if case.after]
        for case in self.cases:
            if case not in waiting:
                self.submit(case)
        cancelled = False
        while time.monotonic() - began < GIVE_UP_S:
            stack.look()
            age = time.monotonic() - began
            if age > KILL_AFTER_S and not self.killed:
                self.kill_workers()
            if age > CANCEL_AFTER_S and not cancelled:
                cancelled = True
                self.cancel()
            for case in list(waiting):
                first = next(other for other in self.cases if other.name == case.after)
                if self.over(first) and self.idle():
                    self.submit(case)
                    waiting.remove(case)
            if not waiting and all(self.over(case) for case in self.cases):
                break
            time.sleep(0.05)

    def idle(self) -> bool:
        with self.app.database.read() as tx:
            rows = leases.page(tx, tenant_id="default", live=True)
        return any(row["status"] == "idle" for row in rows)

    def cancel(self) -> None:
        for case in self.cases:
            if case.cancel:
                with self.app.database.write("demo.cancel") as tx:
                    ending.request_end(
                        tx, self.context, case.run_id, EndKind.CANCEL, actor="demo"
                    )

    def settle_leases(self) -> None:
        """Give the idle lease back and wait until the provider is owed nothing."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with self.app.database.write("demo.release") as tx:
                live = leases.page(tx, tenant_id="default", live=True)
                for row in live:
                    if row["status"] == "idle":
                        leases.expire_now(tx, row["id"])
            if not live:
                return
            time.sleep(0.1)

    def output(self, case: Case) -> bytes:
        with self.app.database.read() as tx:
            rows = executions.of_run(tx, case.run_id)
            return b"".join(
                executions.output(tx, row["id"], stream="stdout", offset=0) for row in rows
            )

    def history(self, case: Case) -> list[Row]:
        with self.app.database.read() as tx:
            return moves.events_of(tx, run_id=case.run_id)


def table(demo: Demo) -> Table:
    """Show what happened, a line a run."""
    grid = Table(title="What happened", title_justify="left")
    for name in ("command", "status", "exit", "starts", "seconds", "workers", "first line"):
        grid.add_column(
            name, justify="right" if name in {"exit", "starts", "seconds"} else "left"
        )
    for case in demo.cases:
        row = case.row
        began, ended = row.get("started_at"), row.get("finished_at")
        seconds = f"{(ended - began) / 1e6:.1f}" if began and ended else ""
        seen = [e["data"]["worker"][-4:] for e in demo.history(case) if "worker" in e["data"]]
        text = demo.output(case).decode(errors="replace").strip().splitlines()
        grid.add_row(
            case.name,
            str(row.get("status")),
            "" if row.get("exit_code") is None else str(row["exit_code"]),
            str(starts(demo, case)),
            seconds,
            " → ".join(dict.fromkeys(seen)),
            (text[0] if text else row.get("message") or "")[:40],
        )
    return grid


def starts(demo: Demo, case: Case) -> int:
    """Count the marks that the command itself wrote, outside of the store."""
    mark = demo.mark(case)
    return len(mark.read_text().splitlines()) if mark.exists() else 0


def check(demo: Demo) -> list[tuple[str, str, bool]]:
    """Return each promise, what was looked at, and whether it held."""
    done = demo.cases
    as_expected = [
        case.row.get("status") == case.status and case.row.get("exit_code") == case.exit_code
        for case in done
    ]
    once = [starts(demo, case) == case.starts for case in done]
    whole = [demo.output(case) == case.output for case in done if case.output is not None]
    root = demo.settings.host_home / "sandboxes"
    left = [path for path in root.glob("*/*") if path.is_dir() and _is_sandbox(path)]
    with demo.app.database.read() as tx:
        broken = invariants.check(tx)
        differences = history.verify(tx)
        live = leases.page(tx, tenant_id="default", live=True)
    return [
        (
            "P1 ended",
            f"{sum(as_expected)} of {len(done)} runs ended as they should",
            all(as_expected),
        ),
        (
            "P2 once",
            f"{sum(once)} of {len(done)} commands wrote just the marks they should",
            all(once),
        ),
        ("P2 no byte lost", f"{sum(whole)} of {len(whole)} outputs are whole", all(whole)),
        ("P2 re-attached", _reattached(demo), "→" in _reattached(demo)),
        (
            "P3 no orphan",
            f"{len(left)} sandboxes on disk, {len(live)} live leases",
            not left and not live,
        ),
        ("P4 P5 rows", f"{len(broken)} rows break an invariant", not broken),
        ("P9 history", f"{len(differences)} rows differ from their events", not differences),
    ]


def _is_sandbox(path: Path) -> bool:
    return "sb-" in path.name or "lease" in path.name or len(path.name) >= 32  # noqa: PLR2004


def _reattached(demo: Demo) -> str:
    long = next(case for case in demo.cases if case.name == "long")
    seen = [e["data"]["worker"][-4:] for e in demo.history(long) if "worker" in e["data"]]
    return "the long command: worker " + " → ".join(dict.fromkeys(seen))


@contextmanager
def _home() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="leasehold-demo-"))
    try:
        yield root / "home"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    """Show it; return the exit code."""
    console = Console(highlight=False)
    log.configure(level="ERROR")
    began = time.monotonic()
    with _home() as home:
        os.environ["LEASEHOLD_HOME"] = str(home)
        os.environ.setdefault("LEASEHOLD_LOG_LEVEL", "ERROR")
        with Stack(knobs.load()) as stack:
            where = stack.start()
            console.print(f"embedded stack: broker {where.broker}, database {where.database}")
            stack.wait_ready()
            demo = Demo(home, console)
            demo.environments()
            demo.play(stack)
            demo.settle_leases()
            results = check(demo)
            console.print(table(demo))
            demo.app.database.close()
    held = True
    for promise, seen, good in results:
        held = held and good
        console.print(
            f"{'[green]held[/]  ' if good else '[bold red]BROKEN[/]'} {promise}: {seen}"
        )
    console.print(f"{time.monotonic() - began:.1f} s; nothing is left behind")
    return 0 if held else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LeaseholdError as error:
        sys.stderr.write(f"leasehold: {error}\n")
        raise SystemExit(1) from None
