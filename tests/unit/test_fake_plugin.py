"""The sandboxes of `fake_plugin`: directories with a label, a fence and an end of their own."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path

import psutil
import pytest

from leasehold.provider import (
    Acquired,
    Command,
    ExecutionState,
    ExitCause,
    HealthState,
    LeaseRef,
    ReleaseMode,
    SandboxGoneError,
    SandboxState,
    StaleFenceError,
    Target,
)
from leasehold.seams import listening
from leasehold_fake_plugin import make
from leasehold_fake_plugin.provider import FakePlugin
from supervised import LEASE, TTL, Bench, budget, in_shell, until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.whole.release(bench.target, fence=10**18, mode=ReleaseMode.DESTROY, budget=budget())
    bench.assert_quiet()
    assert list((tmp_path / "sandboxes").iterdir()) == []


class DiedError(BaseException):
    """As if the process had been killed: nothing of ours catches it."""


def test_the_entry_point_makes_a_healthy_provider(tmp_path: Path) -> None:
    (entry,) = entry_points(group="leasehold.providers", name="fake_plugin")
    provider = entry.load()({"root": str(tmp_path / "not" / "yet")})
    assert provider.probe({}, budget=budget()).state is HealthState.HEALTHY
    assert not (tmp_path / "not").exists()
    assert provider.describe().key == "fake_plugin"


def test_a_config_is_filled_in_and_its_mistakes_are_named(tmp_path: Path) -> None:
    provider = make({"root": str(tmp_path)})
    good = provider.validate({"image": "mine"}, budget=budget())
    assert good.ok
    assert good.config == {"image": "mine", "reuse_lease": True, "grace_ms": 250}
    bad = {"image": "", "reuse_lease": "yes", "grace_ms": -1, "color": "red"}
    problems = provider.validate(bad, budget=budget()).problems
    assert [problem.path for problem in problems] == [
        "color",
        "image",
        "reuse_lease",
        "grace_ms",
    ]


def test_one_lease_has_one_sandbox_whoever_asks(bench: Bench) -> None:
    lease = LeaseRef(id="raced", number=2, deployment="tests")
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(
                lambda _: bench.whole.acquire(
                    lease, {}, known=None, ttl=TTL, fence=1, budget=budget()
                ),
                range(8),
            )
        )
    assert len({sandbox.handle["incarnation"] for sandbox in made}) == 1
    assert [sandbox.outcome for sandbox in made].count(Acquired.CREATED) == 1
    target = Target(lease=lease, handle={}, config={})
    bench.whole.release(target, fence=2, mode=ReleaseMode.DESTROY, budget=budget())


def test_an_acquire_or_release_that_dies_anywhere_is_repeated_to_the_same_end(
    tmp_path: Path,
) -> None:
    provider = FakePlugin({"root": str(tmp_path)})
    target = Target(lease=LEASE, handle={}, config={})

    def life() -> None:
        provider.acquire(LEASE, {}, known=None, ttl=TTL, fence=1, budget=budget())
        provider.release(target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())

    points: list[str] = []
    with listening(points.append):
        life()
    assert len(points) >= 8
    for fatal in range(len(points)):
        seen: list[str] = []

        def die(name: str, seen: list[str] = seen, fatal: int = fatal) -> None:
            seen.append(name)
            if len(seen) == fatal + 1:
                raise DiedError

        with listening(die), pytest.raises(DiedError):
            life()
        for owned in provider.list_owned("tests", config={}, budget=budget()):
            assert owned.lease_id == LEASE.id
            assert owned.fence == 1
        life()
        provider.release(target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
        assert list(tmp_path.iterdir()) == [], points[fatal]


def test_only_our_deployment_is_listed(bench: Bench) -> None:
    foreign = LeaseRef(id="theirs", number=9, deployment="other")
    bench.whole.acquire(foreign, {}, known=None, ttl=TTL, fence=5, budget=budget())
    (bench.root / "sandboxes" / "sb-nothing").mkdir()
    (mine,) = bench.whole.list_owned("tests", config={}, budget=budget())
    assert (mine.lease_id, mine.lease_number, mine.fence) == (LEASE.id, 1, 1)
    assert mine.age_s >= 0
    assert mine.handle == bench.target.handle
    (bench.root / "sandboxes" / "sb-nothing").rmdir()
    target = Target(lease=foreign, handle={}, config={})
    bench.whole.release(target, fence=5, mode=ReleaseMode.DESTROY, budget=budget())


def test_a_suspended_sandbox_keeps_its_files_and_loses_its_processes(bench: Bench) -> None:
    (bench.path / "work" / "file").write_text("kept")
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    bench.whole.release(bench.target, fence=2, mode=ReleaseMode.SUSPEND, budget=budget())
    bench.assert_quiet()
    again = bench.whole.acquire(
        LEASE, {}, known=bench.target.handle, ttl=TTL, fence=3, budget=budget()
    )
    assert again.outcome is Acquired.RESUMED
    assert (bench.path / "work" / "file").read_text() == "kept"


def test_a_late_suspend_of_an_old_holder_is_refused(bench: Bench) -> None:
    bench.whole.seize(bench.target, fence=5, budget=budget())
    for mode in ReleaseMode:
        with pytest.raises(StaleFenceError):
            bench.whole.release(bench.target, fence=4, mode=mode, budget=budget())
    assert bench.path.exists()


def test_a_sandbox_that_is_gone_is_not_made_anew_for_a_known_handle(bench: Bench) -> None:
    bench.whole.release(bench.target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
    bench.whole.release(bench.target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
    assert bench.whole.inspect(bench.target, budget=budget()).state is SandboxState.GONE
    with pytest.raises(SandboxGoneError):
        bench.whole.acquire(
            LEASE, {}, known=bench.target.handle, ttl=TTL, fence=1, budget=budget()
        )
    with pytest.raises(SandboxGoneError):
        bench.start(bench.counting())
    with pytest.raises(SandboxGoneError):
        bench.whole.release(bench.target, fence=1, mode=ReleaseMode.SUSPEND, budget=budget())
    assert not bench.path.exists()


def test_another_incarnation_is_left_alone(bench: Bench) -> None:
    stale = Target(lease=LEASE, handle={"v": 1, "incarnation": "earlier"}, config={})
    bench.whole.release(stale, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
    assert bench.whole.inspect(stale, budget=budget()).state is SandboxState.GONE
    assert bench.whole.inspect(bench.target, budget=budget()).state is SandboxState.READY


def test_a_sandbox_that_nobody_renews_ends_its_commands(bench: Bench) -> None:
    bench.whole.renew(bench.target, fence=1, ttl=timedelta(seconds=1), budget=budget())
    bench.start(Command(argv=("sleep", "60")))
    end = bench.ended().exit
    assert end
    assert (end.cause, end.code) == (ExitCause.EXPIRED, None)
    assert bench.whole.inspect(bench.target, budget=budget()).state is SandboxState.STOPPED
    with pytest.raises(SandboxGoneError):
        bench.whole.renew(bench.target, fence=1, ttl=TTL, budget=budget())


def test_a_renewal_keeps_a_command_alive_past_the_first_end(bench: Bench) -> None:
    bench.whole.renew(bench.target, fence=1, ttl=timedelta(seconds=1), budget=budget())
    bench.start(Command(argv=("sh", "-c", "sleep 1.5; echo alive")))
    bench.whole.renew(bench.target, fence=1, ttl=TTL, budget=budget())
    assert bench.ended().stdout == b"alive\n"


def test_what_a_command_locked_is_removed_all_the_same(bench: Bench) -> None:
    bench.run("sh", "-c", "mkdir -p a/b; touch a/b/c; chmod 0 a/b a; ln -s / root")
    bench.whole.release(bench.target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
    assert not bench.path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["dash", pytest.param("busybox", marks=pytest.mark.proof)])
def test_after_a_suspend_beyond_its_time_a_running_command_goes_on(
    bench: Bench, shell: str
) -> None:
    """All was stopped, the supervisor too: it waits for one renewal, which is not refused."""
    bench.whole = in_shell(bench.root, shell)
    suspended_beyond_its_time(bench)
    bench.whole.renew(bench.target, fence=1, ttl=TTL, budget=budget())
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 3 or None)
    assert bench.poll().state is ExecutionState.RUNNING


@pytest.mark.slow
def test_after_a_suspend_a_command_that_nobody_renews_ends(bench: Bench) -> None:
    suspended_beyond_its_time(bench)
    end = bench.ended().exit
    assert end
    assert end.cause is ExitCause.EXPIRED
    with pytest.raises(SandboxGoneError):
        bench.whole.renew(bench.target, fence=1, ttl=TTL, budget=budget())


def test_after_a_reboot_a_sandbox_is_not_renewed(bench: Bench) -> None:
    """Nobody waits for it: what its files call a running command ended with the machine."""
    bench.start(Command(argv=("sleep", "600")))
    until(lambda: bench.poll().state is ExecutionState.RUNNING or None)
    deadline = bench.control / "deadline"
    _, *rest = deadline.read_text().split()
    deadline.write_text(" ".join(["00000000-0000-0000-0000-000000000000", *rest]) + "\n")
    with pytest.raises(SandboxGoneError):
        bench.whole.renew(bench.target, fence=1, ttl=TTL, budget=budget())


def suspended_beyond_its_time(bench: Bench) -> None:
    """Start a command, and stop all that watches over it for longer than it may live."""
    bench.whole.renew(bench.target, fence=1, ttl=timedelta(seconds=6), budget=budget())
    bench.start(Command(argv=("sh", "-c", "sleep 600")))
    until(lambda: bench.poll().state is ExecutionState.RUNNING or None)
    helpers = supervising(bench)
    for helper in helpers:
        helper.suspend()
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 9 or None)
    for helper in helpers:
        helper.resume()


def supervising(bench: Bench) -> list[psutil.Process]:
    """Return the supervisor and its helpers, the command not among them."""
    place = bench.control / "x" / "x1"
    supervisor, command = (
        psutil.Process(int((place / name).read_text().split()[0]))
        for name in ("super", "child")
    )
    session = os.getsid(command.pid)
    return [
        supervisor,
        # A sleep goes on: it is what wakes the watchdog when all is continued.
        *(
            helper
            for helper in supervisor.children(recursive=True)
            if os.getsid(helper.pid) != session and helper.name() != "sleep"
        ),
    ]
