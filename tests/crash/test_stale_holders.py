"""
P2, P4, P5: a holder that was paused and wakes up too late starts nothing and writes nothing.

Nobody is killed here. One worker stops somewhere in the middle, is taken for dead, and its
work is given to another one; then it goes on, with all that it still has in memory.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crash.acts import FOREVER, words
from crash.harness import Cells, Engine
from crash.stage import MissedError, Paused, Stage, next_message, working, working_until_over
from leasehold import seams
from leasehold.domain.lifecycle import LeaseStatus, SessionStatus
from leasehold.maintenance import sessions
from leasehold.orchestrator import chain
from leasehold.provider import supervisor
from leasehold.store import executions, hosts
from leasehold_fake_plugin.provider import FakePlugin
from services import Postgres
from supervised import lines_named

Make = Callable[[], Stage]


@pytest.fixture
def make(request: pytest.FixtureRequest, dialect: str, cells: Cells) -> Iterator[Make]:
    """Return what makes a fresh stage; all are checked and taken down at the end."""
    with ExitStack() as stack:

        def stage() -> Stage:
            cell = cells.make()
            if dialect == "sqlite":
                made = Stage(cell, cell.database_url, furnished=True)
            else:
                server: Postgres = request.getfixturevalue("postgres")
                template = request.getfixturevalue("postgres_template")
                url = stack.enter_context(server.database(template=template))
                made = Stage(cell, url, furnished=False)
            stack.callback(made.close)
            stack.callback(made.check)
            return made

        yield stage


@pytest.fixture
def stage(make: Make) -> Stage:
    return make()


def submit(
    engine: Engine, key: str, *, provider: str, policy: str = "ephemeral", **command: Any
) -> None:
    spec = {"grace_s": 0.1, **command.pop("spec", {})}
    argv = words(provider, engine.cell.mark(key), **command)
    engine.submit(key, [argv], environment=f"{provider}.{policy}", **spec)


def status(engine: Engine, key: str) -> str:
    run = engine.run(key)
    assert run is not None
    return str(run["status"])


def test_of_one_message_delivered_five_times_one_claim_comes(stage: Stage) -> None:
    workers = [stage.engine(f"worker-{number}") for number in range(5)]
    submit(workers[0], "run", provider="fake")
    message = next_message(workers[0])
    together = threading.Barrier(5)
    claimed: list[bool] = []

    def deliver(engine: Engine) -> None:
        together.wait()
        claimed.append(chain.run_message(engine.context, message))

    threads = [threading.Thread(target=deliver, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    workers[0].until(lambda: workers[0].over("run") and workers[0].quiet())
    assert sorted(claimed) == [False] * 4 + [True]
    assert (status(workers[0], "run"), stage.cell.starts("run")) == ("succeeded", 1)


@pytest.mark.parametrize("provider", ["fake", "local"])
def test_a_paused_start_is_refused_when_its_sandbox_serves_another_run(
    stage: Stage, provider: str
) -> None:
    old, new = stage.engine("old"), stage.engine("new")
    submit(old, "first", provider=provider, policy="reuse_by_environment")
    with Paused(working(old), point="provider.start:before") as paused:
        new.cancel("first")
        new.bury("old")
        new.until(lambda: new.over("first") and new.quiet())
        submit(new, "second", provider=provider, policy="reuse_by_environment", seconds=FOREVER)
        new.until(lambda: bool(stage.cell.starts("second")))
        new.until(lambda: resting(new, "second"))
        before = stage.rows()
        paused.wake()
        assert stage.rows() == before
    assert (status(new, "first"), stage.cell.starts("first")) == ("cancelled", 0)
    new.cancel("second")
    new.until(lambda: new.over("second") and new.quiet())
    assert (status(new, "second"), stage.cell.starts("second")) == ("cancelled", 1)
    assert len(new.leases()) == 1, "the second run did not reuse the lease"


def resting(engine: Engine, key: str) -> bool:
    run = engine.run(key)
    return run is not None and run["step"] == "heartbeat" and run["claimed_by"] is None


@pytest.mark.parametrize("provider", ["fake", "local"])
def test_a_late_suspend_does_not_touch_the_next_run(stage: Stage, provider: str) -> None:
    old, new = stage.engine("old"), stage.engine("new")
    submit(old, "first", provider=provider, policy="reuse_by_environment")

    def work() -> None:
        # Messages and exits only: the clock of a paused worker is paused as well.
        while not old.over("first"):
            old.handle(old.inbox.get(timeout=10))

    with Paused(work, point="provider.release:before") as paused:
        new.bury("old")
        new.until(lambda: bool(new.leases(LeaseStatus.IDLE)))
        submit(new, "second", provider=provider, policy="reuse_by_environment", seconds=FOREVER)
        new.until(lambda: bool(stage.cell.starts("second")))
        new.until(lambda: resting(new, "second"))
        before = stage.rows()
        paused.wake()
        after = stage.rows()
    assert after == before
    new.until(lambda: resting(new, "second"))
    assert status(new, "second") == "running"
    new.cancel("second")
    new.until(lambda: new.over("second") and new.quiet())
    assert (status(new, "second"), stage.cell.starts("second")) == ("cancelled", 1)


@pytest.mark.parametrize("provider", ["fake", pytest.param("local", marks=pytest.mark.proof)])
def test_a_worker_that_wakes_up_anywhere_after_its_work_was_given_away_changes_nothing(
    make: Make, provider: str
) -> None:
    names: list[str] = []
    first = make().engine("first")
    submit(first, "run", provider=provider)
    with seams.listening(names.append):
        working_until_over(first, "run")()
    first.until(lambda: first.over("run") and first.quiet())
    # At a commit it would hold the rows, so nobody could take them: then it is not stale.
    places = [n for n in dict.fromkeys(names) if not n.startswith("commit.") or "after" in n]
    assert len(places) > 15, places
    orphans: list[str] = []
    missed: list[str] = []
    for place in places:
        stage = make()
        old, new = stage.engine("old"), stage.engine("new")
        submit(old, "run", provider=provider)
        try:
            with Paused(working_until_over(old, "run"), point=place) as paused:
                new.bury("old")
                new.until(lambda new=new: new.over("run") and new.quiet())  # type: ignore[misc]  # bound now
                before = stage.rows()
                paused.wake()
                assert stage.rows() == before, place
        except MissedError:
            # A look may see the exit before the watch does, and then takes another way.
            missed.append(place)
            continue
        assert (status(new, "run"), stage.cell.starts("run")) == ("succeeded", 1), place
        if new.owned() and place in places[: places.index("provider.acquire:after")]:
            # Made after its lease had ended: P3 leaves it to the sweep, which knows the row.
            orphans.append(place)
            new.destroy(provider, new.owned()[0])
        stage.check()
    assert len(orphans) < len(places) / 3, orphans
    assert len(missed) < 6, missed


class Trust:
    """A guard that says when its worker was stopped past its session."""

    def __init__(self) -> None:
        self.why: str | None = None

    def lost(self) -> str | None:
        return self.why


def test_a_worker_stopped_past_its_session_is_observed_and_starts_nothing_afterwards(
    stage: Stage,
) -> None:
    trust = Trust()
    old = stage.engine("old", own_session=True, guard=trust)
    new = stage.engine("new")
    observer = sessions.Observer()

    def expired() -> bool:
        with new.database.write("session.beat") as tx:
            assert hosts.beat(tx, "session")
        observer.run_once(new.context, own="session")
        with new.database.read() as tx:
            row = tx.one("SELECT status FROM sessions WHERE id = 'session-old'")
        return row is not None and row["status"] == SessionStatus.EXPIRED

    submit(old, "run", provider="local")
    with Paused(working(old), point="provider.acquire:after") as paused:
        trust.why = "stopped"
        new.until(expired)
        new.until(lambda: new.over("run") and new.quiet())
        before = stage.rows()
        paused.wake()
        assert stage.rows() == before
    assert (status(new, "run"), stage.cell.starts("run")) == ("succeeded", 1)


def test_a_worker_without_trust_gives_its_work_up_by_itself(stage: Stage) -> None:
    trust = Trust()
    old = stage.engine("old", guard=trust)
    new = stage.engine("new")
    submit(old, "run", provider="fake")
    with Paused(working(old), point="commit.record.acquire:after") as paused:
        trust.why = "no confirmed beat"
        paused.wake()
    assert stage.cell.starts("run") == 0
    new.until(lambda: new.over("run") and new.quiet())
    assert (status(new, "run"), stage.cell.starts("run")) == ("succeeded", 1)


def test_never_started_is_final_while_the_supervisor_is_stopped_before_go(
    stage: Stage, tmp_path: Path
) -> None:
    old, new = stage.engine("old"), stage.engine("new")
    (go,) = lines_named("go")
    stopped = tmp_path / "stopped"
    script = supervisor.with_kill(
        supervisor.script(), go, "before", signal="STOP", note=str(stopped)
    )
    root = stage.cell.path / "host/sandboxes/fake_plugin"
    old.runtime.registry._providers["fake_plugin"] = FakePlugin(
        {"root": str(root)}, script=script
    )
    submit(old, "before", provider="fake", policy="reuse_by_environment")
    submit(old, "run", provider="fake_plugin", policy="reuse_by_environment")
    old.until(stopped.exists)
    new.bury("old")
    new.until(lambda: new.over("run", "before") and new.quiet())
    assert (status(new, "run"), stage.cell.starts("run")) == ("succeeded", 1)
    run = new.run("run")
    assert run is not None
    with new.database.read() as tx:
        ends = [row["status"] for row in executions.of_run(tx, run["id"])]
        leases = {row["lease_id"] for row in executions.of_run(tx, run["id"])}
    assert ends == ["cancelled", "exited"]
    assert len(leases) == 1, "the new start is in the same reused sandbox"


def test_a_run_that_started_nothing_waits_for_its_vanished_host_and_ends_there(
    stage: Stage,
) -> None:
    old = stage.engine("old")
    submit(old, "run", provider="local")
    working_on = working(old)
    with Paused(working_on, point="provider.acquire:after") as paused:
        later = vanish(stage)
        run = later.run("run")
        assert run is not None
        assert (run["status"], run["lease_id"]) == ("queued", None)
        before = stage.rows()
        paused.wake()
        assert stage.rows() == before
    back = stage.engine("back", own_session=True)
    back.later(later.database.offset_us)
    back.until(lambda: back.over("run") and back.quiet())
    assert (status(back, "run"), stage.cell.starts("run")) == ("succeeded", 1)


def vanish(stage: Stage) -> Engine:
    """End the host's session and let the clock of a further host see its grace pass."""
    clock = stage.engine("clock")
    with clock.database.write("session.end") as tx:
        sessions.end(tx, "session", to=SessionStatus.EXPIRED)
        tx.run("UPDATE hosts SET alive_at = alive_at - 61000000")
    clock.turn()
    return clock
