"""
What the stories do: acts that any worker can go on with, and faults of the world.

An act keeps nothing in memory: it asks the rows where it stands, and is called again and again
until it says that the story is over.
"""

import os
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from crash.harness import Cell, Engine
from leasehold import reaching
from leasehold.domain.lifecycle import LeaseStatus
from leasehold.orchestrator import holding
from leasehold.store import environments, leases
from leasehold.store.database import Database
from leasehold.vault import keeping, keys
from leasehold_local import layout

L = LeaseStatus
FOREVER: Final = 1000
SECRET: Final = "a-value-that-is-nobody's-business"


def words(
    provider: str,
    mark: Path,
    *,
    out: str = "one two",
    err: str = "three",
    code: int = 0,
    fill: int = 0,
    seconds: float = 0,
) -> list[str]:
    """Return a command that marks its start outside of the sandbox, in its provider's words."""
    if provider == "fake":
        phrases = [["mark", str(mark)]]
        phrases += [["fill", str(fill)]] if fill else []
        phrases += [["echo", *out.split()], ["err", err]]
        phrases += [["sleep", str(seconds)]] if seconds else []
        phrases += [["exit", str(code)]]
        return " then ".join(" ".join(phrase) for phrase in phrases).split(" ")
    body = 'echo started >>"$0"; '
    if fill:
        body += f"head -c {fill} /dev/zero | tr '\\0' x; "
    body += f"echo {out}; echo {err} >&2; "
    # exec: a shell that waits would add a word of its own when its child is killed.
    body += f"exec sleep {seconds}" if seconds else f"exit {code}"
    return ["sh", "-c", body, str(mark)]


def one_run(
    provider: str,
    *,
    policy: str = "ephemeral",
    command: Mapping[str, Any] | None = None,
    count: int = 1,
    **spec: Any,
) -> Callable[[Engine], bool]:
    """Submit one run and wait until it is over and nothing is owed."""

    def act(engine: Engine) -> bool:
        argv = words(provider, engine.cell.mark("run"), **(command or {}))
        engine.submit("run", [argv] * count, environment=f"{provider}.{policy}", **spec)
        return engine.over("run") and engine.quiet()

    return act


def keeps_secret(name: str) -> Callable[[Cell], None]:
    """Put a secret into the cell's database, its key beside it."""

    def prepare(cell: Cell) -> None:
        path = cell.path / "secret-keys"
        keys.make_file(path)
        database = Database(cell.database_url)
        with database.write("door.secret") as tx:
            keeping.put(tx, keys.Keys.load(path), tenant_id="default", name=name, value=SECRET)
        database.close()

    return prepare


def said(engine: Engine) -> bool:
    """Return whether all that the run's one command says is stored."""
    with engine.database.read() as tx:
        stored = tx.value("SELECT stderr_offset FROM executions WHERE status = 'running'")
    return bool(stored)


def cancelled_while_running(provider: str) -> Callable[[Engine], bool]:
    start = one_run(provider, command={"seconds": FOREVER}, grace_s=0.1)

    def act(engine: Engine) -> bool:
        done = start(engine)
        run = engine.run("run")
        assert run is not None
        if run["step"] and not run["end_requested"] and said(engine):
            engine.cancel("run")
        return done

    return act


def reused(provider: str) -> Callable[[Engine], bool]:
    """Two runs, one after the other, in one sandbox; then its idle time ends."""

    def act(engine: Engine) -> bool:
        for key in ("first", "second"):
            argv = words(provider, engine.cell.mark(key))
            engine.submit(key, [argv], environment=f"{provider}.reuse_by_environment")
            if not (engine.over(key) and engine.quiet()):
                return False
        idle = engine.leases(L.IDLE)
        for lease in idle:
            with engine.database.write("door.expire") as tx:
                leases.expire_now(tx, lease["id"])
        return not idle and engine.quiet()

    return act


def retained(provider: str) -> Callable[[Engine], bool]:
    """A failure keeps its sandbox until a person gives it back."""
    fails = one_run(provider, policy="retain_on_failure", command={"code": 3})

    def act(engine: Engine) -> bool:
        if not fails(engine):
            return False
        kept = engine.leases(L.RETAINED)
        for lease in kept:
            with engine.database.write("door.give_back") as tx:
                holding.give_back(tx, engine.context, lease["id"], actor="test")
        return not kept

    return act


def visited(provider: str, *, cancelled: bool = False) -> Callable[[Engine], bool]:
    """A failure keeps its sandbox; a person looks into it, and then gives it back."""
    fails = one_run(provider, policy="retain_on_failure", command={"code": 3})
    seconds = FOREVER if cancelled else 0

    def act(engine: Engine) -> bool:
        fails(engine)
        visit = engine.run("visit")
        if visit is not None and visit["step"] and not visit["end_requested"]:
            if cancelled and said(engine):
                engine.cancel("visit")
            return False
        if not engine.quiet():
            return False
        kept = engine.leases(L.RETAINED)
        if visit is None and kept:
            argv = words(provider, engine.cell.mark("visit"), seconds=seconds)
            lease_id = kept[0]["id"]
            engine.submit("visit", [argv], lease_id=lease_id, visit=True, grace_s=0.1)
            return False
        for lease in kept:
            with engine.database.write("door.give_back") as tx:
                holding.give_back(tx, engine.context, lease["id"], actor="test")
        # Another one may have been given up on the way: a start that failed on a busy machine.
        seen = visit["wanted_lease_id"] if visit else None
        over = [row for row in engine.leases(L.RELEASED) if row["id"] == seen]
        reasons = {row["reason"] for row in over}
        assert reasons <= {"asked by test"}, f"not by the person, but: {reasons}"
        return bool(over)

    return act


def visited_idle(provider: str) -> Callable[[Engine], bool]:
    """A person looks into a sandbox that is suspended for reuse; then its idle time ends."""
    makes = one_run(provider, policy="reuse_by_environment")

    def act(engine: Engine) -> bool:
        makes(engine)
        if not engine.quiet():
            return False
        idle = engine.leases(L.IDLE)
        if engine.run("visit") is None:
            argv = words(provider, engine.cell.mark("visit"))
            engine.submit("visit", [argv], lease_id=idle[0]["id"], visit=True)
            return False
        for lease in idle:
            with engine.database.write("door.expire") as tx:
                leases.expire_now(tx, lease["id"])
        return not idle

    return act


def held(provider: str) -> Callable[[Engine], bool]:
    """A lease on its own, two runs in it, then it is given back."""

    def act(engine: Engine) -> bool:
        found = engine.leases()
        if not found:
            with engine.database.write("door.hold") as tx:
                environment = environments.get(tx, f"{provider}.ephemeral", tenant_id="default")
                holding.create(
                    tx,
                    engine.context,
                    environment,
                    hold_for=timedelta(hours=1),
                    version="1",
                    key="held",
                )
            return False
        lease = found[0]
        for key in ("first", "second"):
            if engine.run(key) is None and lease["status"] in {L.RELEASING, L.RELEASED}:
                raise AssertionError("given back before its runs were over")
            argv = words(provider, engine.cell.mark(key))
            engine.submit(key, [argv], lease_id=lease["id"])
        if not engine.over("first", "second"):
            return False
        if lease["status"] == L.IDLE:
            with engine.database.write("door.give_back") as tx:
                holding.give_back(tx, engine.context, lease["id"], actor="test")
            return False
        return engine.quiet()

    return act


def faults(*scripted: Mapping[str, Any]) -> Callable[[Cell], None]:
    """Script the fake's world before the first worker lives."""

    def prepare(cell: Cell) -> None:
        for fault in scripted:
            cell.world.script(**fault)

    return prepare


def loses_sandbox(engine: Engine, point: str, nth: int) -> None:
    """Let the sandbox burn down before anybody looks at the command that was started."""
    if point not in {"provider.poll:before", "provider.seize:before"}:
        return
    if engine.cell.starts("run") and engine.cell.once("lost"):
        for lease_id in engine.cell.world.sandboxes():
            engine.cell.world.lose(lease_id)


def kills_supervisor(engine: Engine, point: str, nth: int) -> None:
    """Kill the process that looks after the command, so that its exit is never written."""
    if point != "provider.poll:before" or not engine.cell.starts("run"):
        return
    for place in (engine.cell.path / "host/sandboxes/local").glob("*/ctl/x/*"):
        identity = layout.parse_go(layout.value(f"{place}/go") or "")
        if identity is not None and engine.cell.once("killed"):
            os.kill(identity.supervisor, signal.SIGKILL)


JUMP_US: Final = 601 * 1_000_000


def jumps(engine: Engine, point: str, nth: int) -> None:
    """Let the database's clock jump, once, when the command has said all and rests."""
    if point == "commit.beat.rest:after" and said(engine) and engine.cell.once("jump"):
        engine.later(JUMP_US)


def cancels_in_acquire(engine: Engine, point: str, nth: int) -> None:
    done = engine.cell.path / "once-cancel"
    if point == "provider.acquire:before" and not done.exists():
        engine.cancel("run")
        done.touch()


def knows_an_api(cell: Cell) -> None:
    """Let sandboxes be asked for an API that does not answer: its port is nobody's."""
    (cell.path / reaching.FILE).write_text("http://127.0.0.1:9")


def cancels_when_asked(engine: Engine, point: str, nth: int) -> None:
    done = engine.cell.path / "once-cancel"
    if point == "provider.ask:after" and not done.exists():
        engine.cancel("run")
        done.touch()


def parked(engine: Engine) -> bool:
    """Parked by a broken provider, then cancelled by a person."""
    one_run("fake", max_infra_attempts=2)(engine)
    run = engine.run("run")
    if run is not None and run["status"] == "parked":
        engine.cancel("run")
    return engine.over("run") and engine.quiet()
