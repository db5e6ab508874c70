"""How commands behind bubblewrap end: by limits, by TERM, by deaths around them."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bubblewrap_world import (
    Fenced,
    bare,
    killing_copy,
    marked_lines,
    provider,
    require_bubblewrap,
)
from leasehold.provider import ExecutionState, ExitCause, SettledState, StartOutcome
from leasehold.provider.conformance.leaks import processes_below
from leasehold_bubblewrap.config import look_around
from leasehold_local import processes
from local_world import until

SELDOM = {"kill_group", "kill_tree"}
"""Reached only if a killed `bwrap` has left something, which the kernel does not."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Fenced]:
    require_bubblewrap()
    found = Fenced(tmp_path / "root", provider(tmp_path / "root"))
    yield found
    found.end()


def limited(world: Fenced, name: str) -> None:
    if world.provider._ground.limits()[name] is None:  # type: ignore[attr-defined]  # bubblewrap's own
        pytest.skip(f"no writable cgroup for {name}")


def test_running_out_of_memory_is_told_apart(world: Fenced) -> None:
    limited(world, "memory_mb")
    world.config = {"memory_mb": 48}
    record = world.shell("exec dd if=/dev/zero of=/dev/null bs=400M count=1").exit
    assert record is not None
    assert (record.cause, record.signal) == (ExitCause.OOM, 9)
    record = world.shell("kill -9 $$").exit
    assert record is not None
    assert record.cause is ExitCause.SIGNALLED
    in_tmp = world.shell("head -c 200m /dev/zero >/tmp/big").exit
    assert in_tmp is not None
    assert in_tmp.code != 0, "what is in /tmp counts as memory"


def test_a_share_of_a_processor_is_kept(world: Fenced) -> None:
    limited(world, "cpus")
    world.config = {"cpus": 0.1}
    seen = world.said("timeout 2 sh -c 'while :; do :; done'; times")
    # The second line: minutes and seconds of what was waited for, by the user and the system.
    used = [float(word[:-1].split("m")[1]) for word in seen.splitlines()[1].split()]
    assert sum(used) < 1.0, seen


def test_term_reaches_the_command_and_its_grace_is_its_own(world: Fenced) -> None:
    trap = 'trap "echo bye; sleep 0.1; echo gone; exit 3" TERM'
    script = f"{trap}; echo hi; while :; do sleep 0.02; done"
    world.start("one", "sh", "-c", script)
    world.wait_output("one", b"hi")
    settled = world.cancel("one", grace_s=15)
    assert settled.exit is not None
    assert settled.exit.cause is ExitCause.CANCELLED
    assert world.look("one").stdout == b"hi\nbye\ngone\n"


def test_a_cancel_before_the_sandbox_stands_starts_nothing(world: Fenced) -> None:
    for number in range(8):
        world.start(f"e{number}", "sh", "-c", f"echo x >>mark-{number}; sleep 1000")
        settled = world.cancel(f"e{number}", grace_s=5)
        assert settled.state in {SettledState.EXITED, SettledState.NEVER_STARTED}
        assert settled.exit is None or settled.exit.cause is ExitCause.CANCELLED


def test_what_a_command_leaves_behind_ends_with_it(world: Fenced) -> None:
    done = world.shell("setsid sh -c 'while :; do date +%N >tick; sleep 0.01; done' & exit 4")
    assert done.exit is not None
    assert done.exit.code == 4
    assert processes_below(world.root) == []


def test_the_death_of_bwrap_is_the_commands(world: Fenced) -> None:
    world.start("one", "sh", "-c", "echo hi; sleep 1000")
    world.wait_output("one", b"hi")
    os.kill(int(world.go("one")[3]), signal.SIGKILL)
    record = world.wait("one").exit
    assert record is not None
    assert (record.cause, record.signal) == (ExitCause.SIGNALLED, 9)


@pytest.mark.parametrize("groups", [True, False])
def test_the_death_of_the_supervisor_is_settled_with_proof(
    tmp_path: Path, *, groups: bool
) -> None:
    require_bubblewrap()
    root = tmp_path / "root"
    ground = look_around("leasehold-test-dies", str(root)) if groups else bare(root)
    world = Fenced(root, provider(root, ground=ground))
    try:
        world.start("one", "sh", "-c", "echo hi; trap '' TERM; setsid sleep 1000")
        world.wait_output("one", b"hi")
        os.kill(int(world.go("one")[1]), signal.SIGKILL)
        until(lambda: world.look("one").state is ExecutionState.UNCLEAR, "its death is seen")
        assert world.settle("one").state is SettledState.LOST
        assert processes_below(root) == []
    finally:
        world.end()


def test_a_sandbox_that_cannot_be_made_is_lost_and_says_why(
    world: Fenced, tmp_path: Path
) -> None:
    shown = Path("/opt") if Path("/opt").is_dir() else Path("/srv")
    world.config = {"ro_binds": [str(shown)]}
    world.acquire()
    (world.path / "home").rmdir()
    world.start("one", "true")
    until(lambda: world.look("one").state is ExecutionState.UNCLEAR, "there is no record")
    assert world.settle("one").state is SettledState.LOST
    assert b"home" in world.look("one").stderr
    del tmp_path


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("file", "line", "name"), [one for one in marked_lines() if one[2] not in SELDOM]
)
def test_whoever_is_killed_at_any_effect_leaves_something_to_prove(
    tmp_path: Path, file: str, line: int, name: str, when: str
) -> None:
    require_bubblewrap()
    source = killing_copy(tmp_path / "source", file, line, when)
    root, reached = tmp_path / "root", tmp_path / "source/reached"
    scripts: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("echo x >>mark; echo out", {}),
        "stubborn": (
            "trap '' TERM; echo x >>mark; echo out; sleep 1000 & sleep 1001; sleep 1002",
            {"timeout": timedelta(seconds=0.4)},
        ),
        "let-out": ("echo x >>mark; echo out", {}),
    }
    for kind, (script, more) in scripts.items():
        world = Fenced(root, provider(root, source=source))
        try:
            reached.unlink(missing_ok=True)
            if kind == "let-out":
                world.config = {"network": "allow_list", "allow": ["a.test:443"]}
            world.start(kind, "sh", "-c", script, grace=timedelta(seconds=0.1), **more)

            def told(world: Fenced = world, kind: str = kind) -> bool:
                died = reached.exists() and reached.stat().st_size + world_died(file) > 0
                return died or world.look(kind).exit is not None

            until(told, "it died or ended")
            if reached.exists() and reached.stat().st_size + world_died(file) > 0:
                _proven(world, kind, script)
                return
        finally:
            world.end()
    pytest.fail(f"no test reached {name}")


def world_died(file: str) -> int:
    """Whoever joins opens the file beforehand and writes into it; others make it at the end."""
    return 0 if file.endswith("joining.py") else 1


def _proven(world: Fenced, kind: str, script: str) -> None:
    until(
        lambda: world.look(kind).state is not ExecutionState.RUNNING,
        "the death is seen",
    )
    settled = world.settle(kind)
    assert processes_below(world.root) == []
    mark = world.path / "work/mark"
    starts = len(mark.read_text().split()) if mark.exists() else 0
    assert starts <= (0 if settled.state is SettledState.NEVER_STARTED else 1)
    if world.look(kind).stdout:
        assert starts == 1
    healthy = Fenced(
        world.root, provider(world.root), world.config, fence=2, target=world.target
    )
    try:
        assert healthy.start(kind, "sh", "-c", script).outcome is not StartOutcome.STARTED
        assert healthy.settle(kind) == settled
        assert starts == (len(mark.read_text().split()) if mark.exists() else 0)
    finally:
        healthy.provider.close()
    assert processes.boot_id()
