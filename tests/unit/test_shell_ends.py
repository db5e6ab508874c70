"""How commands end through a `ShellProvider`: by time, by cancel, by loss; one start each."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from leasehold.provider import (
    Command,
    ExecutionState,
    ExitCause,
    ReleaseMode,
    SettledState,
    StartOutcome,
    UnavailableError,
    supervisor,
)
from supervised import Bench, budget, until

CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.whole.release(bench.target, fence=10**18, mode=ReleaseMode.DESTROY, budget=budget())
    bench.assert_quiet()


def test_a_timeout_ends_the_whole_tree_without_an_exit_code(bench: Bench) -> None:
    body = ("trap '' TERM", "(trap '' TERM; sleep 60) & wait")
    slow = bench.counting(*body).argv
    bench.start(Command(argv=slow, timeout=timedelta(seconds=0.2)))
    end = bench.ended().exit
    assert end
    assert (end.cause, end.code) == (ExitCause.TIMEOUT, None)
    bench.assert_quiet()


def test_a_cancel_ends_the_tree_and_keeps_the_output(bench: Bench) -> None:
    bench.start(bench.counting("echo kept", "trap 'echo bye; exit 5' TERM", "sleep 60 & wait"))
    until(lambda: bench.poll().stdout or None)
    first = bench.cancel(grace_s=5)
    assert first.exit
    assert (first.exit.cause, first.exit.code) == (ExitCause.CANCELLED, None)
    assert bench.poll().stdout == b"kept\nbye\n"
    bench.assert_quiet()
    assert bench.cancel() == first


@pytest.mark.parametrize("name", ["a) Z 1 2 3 4", "b\n) S 1 1 1 ", "(c) R (", "d\xff\n"])
def test_no_name_hides_a_process_that_is_left(bench: Bench, name: str) -> None:
    """Whatever it calls itself, the end of its leader is the end of it."""
    path = bench.outside.parent / "named"
    hidden = (
        "import ctypes, pathlib, time\n"
        f"ctypes.CDLL(None).prctl(15, {name.encode('latin-1')!r})\n"
        f"pathlib.Path({str(path)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    wait = f"until [ -e '{path}' ]; do sleep 0.01; done"
    done = bench.run("sh", "-c", f'"$1" -c "$2" & {wait}', "-", sys.executable, hidden)
    assert done.exit
    assert done.exit.code == 0
    bench.assert_quiet()


def test_a_cgroup_catches_what_left_the_session(tmp_path: Path) -> None:
    root = next((p for p in map(Path, CGROUPS) if (p / "cgroup.controllers").exists()), None)
    group = root / f"leasehold-test-{os.getpid()}" if root else tmp_path / "none"
    if not root or not os.access(root, os.W_OK):
        pytest.skip("no writable cgroup v2 on this machine")
    group.mkdir()

    bench = Bench(tmp_path)
    bench.whole = grouped = bench.through(supervisor.script())
    grouped.group = group
    try:
        bench.start(bench.counting("(setsid sleep 61 & setsid setsid sleep 62)", "sleep 63"))
        until(lambda: len((group / "cgroup.procs").read_text().split()) >= 3 or None)
        assert bench.cancel().state is SettledState.EXITED
        assert (group / "cgroup.procs").read_text() == ""
        bench.whole.release(bench.target, fence=2, mode=ReleaseMode.DESTROY, budget=budget())
    finally:
        group.rmdir()


def test_a_cancel_that_comes_after_the_end_changes_nothing(bench: Bench) -> None:
    end = bench.run("sh", "-c", "exit 4").exit
    assert bench.cancel().exit == end


def test_a_cancel_before_the_start_leaves_a_tombstone(bench: Bench) -> None:
    assert bench.cancel().state is SettledState.NEVER_STARTED
    assert bench.start(bench.counting()).outcome is StartOutcome.CANCELLED
    assert bench.poll().state is ExecutionState.UNCLEAR
    assert bench.settle().state is SettledState.NEVER_STARTED
    assert bench.starts() == 0


def test_a_running_command_is_not_settled(bench: Bench) -> None:
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    with pytest.raises(UnavailableError, match="runs under its supervisor"):
        bench.whole.settle(bench.target, fence=1, execution_id="x1", handle={}, budget=budget())
    with pytest.raises(UnavailableError, match="not ended"):
        bench.whole.forget(bench.target, fence=1, execution_id="x1", handle={}, budget=budget())
    bench.cancel()


def test_a_lost_supervisor_means_the_command_is_killed_and_lost(bench: Bench) -> None:
    bench.start(bench.counting("trap '' TERM", "sleep 60 & wait", "wait"))
    until(lambda: bench.starts() or None)
    os.kill(int((bench.control / "x/x1/super").read_text().split()[0]), 9)
    until(lambda: bench.poll().state is ExecutionState.UNCLEAR or None)
    assert bench.settle().state is SettledState.LOST
    assert bench.processes() == []
    assert bench.settle().state is SettledState.LOST


def test_a_stopped_supervisor_cannot_hold_up_a_cancel(bench: Bench) -> None:
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    os.kill(int((bench.control / "x/x1/super").read_text().split()[0]), 19)
    assert bench.cancel(grace_s=0.05).state is SettledState.LOST
    bench.assert_quiet()


def test_a_supervisor_of_another_boot_or_namespace_is_not_taken_for_ours(bench: Bench) -> None:
    bench.run("true")
    record = bench.control / "x/x1/super"
    (bench.control / "x/x1/exit").unlink()
    pid, began, boot, _ = record.read_text().split()
    record.write_text(f"{pid} {began} {boot} pid:[1]\n")
    assert isinstance(bench.poll().error, UnavailableError)
    with pytest.raises(UnavailableError, match="another pid namespace"):
        bench.settle()
    record.write_text(f"{os.getpid()} {began} another-boot pid:[1]\n")
    assert bench.poll().state is ExecutionState.UNCLEAR
    assert bench.settle().state is SettledState.LOST


def test_racing_starts_make_one_start(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: bench.start(bench.counting()).outcome, range(8)))
    bench.ended()
    assert sorted(outcomes) == [StartOutcome.ADOPTED] * 7 + [StartOutcome.STARTED]
    assert bench.starts() == 1
