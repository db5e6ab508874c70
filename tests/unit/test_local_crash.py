"""
The local provider killed with SIGKILL: the worker at each of its effects, the supervisor too.

The points are listed by running, never by hand. After each kill a second provider repeats the
call, and the same must hold: the command was started once or provably never, all of its output
is there, and after the destroy nothing of it is left.
"""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

import leasehold_local
from leasehold.provider import ExecutionState, ExitCause, SettledState, StartOutcome
from leasehold.seams import listening
from leasehold_local import processes
from local_world import BARE, World, budget, has_tree, processes_of, provider, until

PACKAGE = Path(leasehold_local.__file__).parent
MARK = re.compile(r"# @ (\w+)$")


def in_a_child(act: Callable[[], None], kill_at: int | None = None) -> list[str]:
    """Run `act` in a forked child that dies at its `kill_at`th point; return the points."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        names: list[str] = []

        def hook(name: str) -> None:
            if len(names) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            names.append(name)
            os.write(write_end, f"{name}\n".encode())

        try:
            with listening(hook):
                act()
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        seen = lines.read().split()
    os.waitpid(pid, 0)
    return seen


class Story:
    """A world whose command tells outside of the sandbox that it was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.mark = folder / "mark"

    def fresh(self, fence: int) -> World:
        return World(self.root, provider(self.root), fence=fence)

    def start(self, world: World) -> StartOutcome:
        script = f"echo x >>{self.mark}; echo out; cat"
        return world.start("e1", "sh", "-c", script, stdin=b"in\n").outcome

    @property
    def starts(self) -> int:
        return len(self.mark.read_text().split()) if self.mark.exists() else 0


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def every_point(act: Callable[[Story], None], folder: Path) -> Iterator[tuple[Story, str]]:
    """Yield a story killed at each point of `act`, which begins after `prepare`."""
    listed = Story(folder / "list")
    listed.folder.mkdir()
    points = in_a_child(lambda: act(listed))
    listed.fresh(99).end()
    assert points
    for index, name in enumerate(points):
        one = Story(folder / str(index))
        one.folder.mkdir()
        seen = in_a_child(partial(act, one), kill_at=index)
        assert len(seen) <= index, name
        yield one, name


def test_a_worker_killed_anywhere_between_acquire_and_start_starts_it_once(
    tmp_path: Path,
) -> None:
    def act(story: Story) -> None:
        story.start(story.fresh(1))

    for story, name in every_point(act, tmp_path):
        world = story.fresh(2)
        try:
            world.acquire()
            story.start(world)
            seen = world.wait("e1")
            assert (story.starts, seen.stdout) == (1, b"out\nin\n"), name
        finally:
            world.end()


def test_a_worker_killed_anywhere_in_a_start_can_be_settled(tmp_path: Path) -> None:
    def act(story: Story) -> None:
        story.start(story.fresh(1))

    for story, name in every_point(act, tmp_path):
        world = story.fresh(2)
        try:
            world.acquire()
            settled = world.cancel("e1")
            assert settled.state in {SettledState.NEVER_STARTED, SettledState.EXITED}, name
            before = story.starts
            if settled.state is SettledState.NEVER_STARTED:
                assert before == 0, name
            assert story.start(world) is not StartOutcome.STARTED, name
            assert world.settle("e1") == settled, name
            assert story.starts == before, name
        finally:
            world.end()


def test_a_worker_killed_anywhere_in_a_cancel_is_followed_by_one_that_finishes_it(
    tmp_path: Path,
) -> None:
    def act(story: Story) -> None:
        world = story.fresh(1)
        world.start("e1", "sleep", "1000")
        world.wait_running("e1")
        world.fence = 2
        world.cancel("e1")

    for story, name in every_point(act, tmp_path):
        world = story.fresh(3)
        try:
            world.acquire()
            settled = world.cancel("e1")
            if settled.exit is not None:
                assert settled.exit.cause is ExitCause.CANCELLED, name
            assert processes_of(story.root) == [], name
        finally:
            world.end()


def test_a_worker_killed_anywhere_in_a_destroy_is_followed_by_one_that_finishes_it(
    tmp_path: Path,
) -> None:
    def act(story: Story) -> None:
        world = story.fresh(1)
        world.start("e1", "sleep", "1000")
        world.wait_running("e1")
        world.destroy()

    for story, name in every_point(act, tmp_path):
        world = story.fresh(2)
        listed = list(world.provider._sandboxes.owned("deployment-1"))
        assert len(listed) <= 1, name
        assert listed or not world.path.exists() or not any(world.path.iterdir()), name
        world.end()


# ---- the supervisor --------------------------------------------------------------------------


def marked_lines() -> list[tuple[str, int, str]]:
    return [
        (file, number, match[1])
        for file in ("supervisor.py", "command.py")
        for number, line in enumerate((PACKAGE / file).read_text().splitlines())
        if (match := MARK.search(line))
    ]


def killing_copy(folder: Path, file: str, line: int, when: str, number: int = 9) -> Path:
    """Return a source directory whose supervisor signals itself before or after one line."""
    shutil.copytree(PACKAGE, folder / "leasehold_local", ignore=shutil.ignore_patterns("__py*"))
    path = folder / "leasehold_local" / file
    lines = path.read_text().splitlines()
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    flag = str(folder / "reached")
    kill = f"{indent}open({flag!r}, 'w').close(); os.kill(os.getpid(), {number:d})"
    lines.insert(line if when == "before" else line + 1, kill)
    path.write_text("\n".join(lines) + "\n")
    return folder


SCRIPTS = {
    "plain": "echo x >>{mark}; echo out",
    "stubborn": "trap '' TERM; echo x >>{mark}; echo out; sleep 1000 & sleep 1001; sleep 1002",
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("file", "line", "name"), marked_lines())
def test_a_supervisor_killed_at_any_effect_leaves_something_to_prove(
    story: Story, file: str, line: int, name: str, when: str
) -> None:
    source = killing_copy(story.folder / "source", file, line, when)
    reached = False
    for kind, ground in (("plain", None), ("stubborn", None), ("stubborn", BARE)):
        shutil.rmtree(story.root, ignore_errors=True)
        story.mark.unlink(missing_ok=True)
        world = World(story.root, provider(story.root, source=source, ground=ground))
        try:
            reached = _one_death(story, world, kind)
        finally:
            world.end()
        if reached:
            break
    assert reached, f"no test reached {name}"


def _one_death(story: Story, world: World, kind: str) -> bool:
    """Start, let it die, settle with proof; say whether the line was reached."""
    flag = story.folder / "source/reached"
    flag.unlink(missing_ok=True)
    more = {} if kind == "plain" else {"timeout": timedelta(seconds=0.2)}
    script = SCRIPTS[kind].format(mark=story.mark)
    world.start("e1", "sh", "-c", script, grace=timedelta(seconds=0.1), **more)
    until(lambda: flag.exists() or world.look("e1").exit is not None, "it died or ended")
    if not flag.exists():
        return False
    until(
        lambda: world.look("e1").state is not ExecutionState.RUNNING,
        "its death is seen",
    )
    settled = world.settle("e1")
    assert processes_of(story.root) == []
    match settled.state:
        case SettledState.NEVER_STARTED:
            assert story.starts == 0
        case SettledState.LOST:
            assert story.starts <= 1
        case SettledState.EXITED:
            assert story.starts == 1
            assert world.look("e1").stdout == b"out\n"
    before = story.starts
    healthy = World(story.root, provider(story.root), fence=2)
    outcome = healthy.start("e1", "sh", "-c", script).outcome
    assert outcome is not StartOutcome.STARTED
    assert healthy.settle("e1") == settled
    assert story.starts == before
    healthy.provider.close()
    return True


def test_a_start_whose_supervisor_died_before_go_is_started_by_the_next_call(
    story: Story,
) -> None:
    lines = {name: (file, line) for file, line, name in marked_lines()}
    file, line = lines["go"]
    source = killing_copy(story.folder / "source", file, line, "before")
    broken = World(story.root, provider(story.root, source=source))
    story.start(broken)
    until((story.folder / "source/reached").exists, "the supervisor died")
    assert broken.look("e1").state is ExecutionState.STARTING
    broken.provider.close()
    world = story.fresh(2)
    try:
        world.acquire()
        assert story.start(world) is StartOutcome.ADOPTED
        assert world.wait("e1").stdout == b"out\nin\n"
        assert story.starts == 1
    finally:
        world.end()


def stopped_before(story: Story, name: str) -> tuple[World, int]:
    """Return a world whose supervisor has stopped itself before a marked line, and its pid."""
    file, line = {mark: (file, line) for file, line, mark in marked_lines()}[name]
    source = killing_copy(story.folder / "source", file, line, "before", signal.SIGSTOP)
    world = World(story.root, provider(story.root, source=source))
    story.start(world)
    until((story.folder / "source/reached").exists, "the supervisor is there")
    zygote = world.provider._spawner._zygote
    pids = [pid for pid, seen in processes.table().items() if seen.parent == zygote]
    until(lambda: state_of(pids[0]) == "T", "the supervisor stopped itself")
    return world, pids[0]


def state_of(pid: int) -> str:
    seen = processes.stat(pid)
    return "gone" if seen is None else seen.state


@pytest.mark.parametrize("verdict", ["settle", "cancel", "destroy"])
def test_a_supervisor_paused_before_go_never_starts_what_was_decided_meanwhile(
    story: Story, verdict: str
) -> None:
    world, pid = stopped_before(story, "go")
    try:
        world.fence = 2
        if verdict == "settle":
            assert world.settle("e1").state is SettledState.NEVER_STARTED
        elif verdict == "cancel":
            assert world.cancel("e1").state is SettledState.NEVER_STARTED
        else:
            world.destroy()
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: state_of(pid) in {"gone", "Z"}, "the supervisor has left")
    assert story.starts == 0
    world.end()


@pytest.mark.skipif(not has_tree(), reason="no writable cgroup v2 on this machine")
def test_a_supervisor_finds_a_newer_fence_before_go(story: Story) -> None:
    world, pid = stopped_before(story, "group")
    try:
        world.provider.seize(world.meant(), fence=2, budget=budget())
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: state_of(pid) in {"gone", "Z"}, "the supervisor has left")
    assert world.look("e1").state is ExecutionState.STARTING
    assert story.starts == 0
    world.provider.close()
    healthy = story.fresh(2)
    assert story.start(healthy) is StartOutcome.ADOPTED
    assert healthy.wait("e1").stdout == b"out\nin\n"
    healthy.end()


def test_commands_outlive_the_worker_and_its_zygote(story: Story) -> None:
    def act() -> None:
        world = story.fresh(1)
        world.start("e1", "sh", "-c", "echo one; read x <gate; echo two")
        world.wait_output("e1", b"one")
        os.kill(world.provider._spawner._zygote, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    prepared = story.fresh(1)
    prepared.acquire()
    os.mkfifo(prepared.path / "work/gate")
    in_a_child(act)
    world = story.fresh(2)
    try:
        world.acquire()
        assert world.look("e1").state is ExecutionState.RUNNING
        with (world.path / "work/gate").open("w") as gate:
            gate.write("go\n")
        assert world.wait("e1").stdout == b"one\ntwo\n"
    finally:
        world.end()


def test_a_zygote_that_was_killed_is_replaced(story: Story) -> None:
    world = story.fresh(1)
    try:
        world.run("e1", "true")
        os.kill(world.provider._spawner._zygote, signal.SIGKILL)
        assert world.run("e2", "echo", "x").stdout == b"x\n"
    finally:
        world.end()


def test_a_forked_worker_does_not_use_its_parents_zygote(story: Story) -> None:
    world = story.fresh(1)
    try:
        world.provider.watch(lambda _: None)
        world.run("e1", "true")
        zygote = world.provider._spawner._zygote

        def act() -> None:
            told: list[str] = []
            world.provider.watch(told.append)
            world.run("e2", "true")
            until(lambda: told == ["e2"], "the fork has a watch of its own")
            assert world.provider._spawner._zygote != zygote
            world.provider.close()
            story.mark.write_text("fine")

        in_a_child(act)
        assert story.mark.read_text() == "fine"
        assert world.run("e3", "echo", "x").stdout == b"x\n"
    finally:
        world.end()
