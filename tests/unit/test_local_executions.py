"""Commands of the local provider: what they see, how they end, what is kept of them."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from leasehold.provider import (
    ConfigRejectedError,
    Enforcement,
    ExecutionState,
    ExecutionUnknownError,
    ExitCause,
    PollItem,
    SettledState,
    StaleFenceError,
    StartOutcome,
    Stream,
    UnavailableError,
)
from local_world import BARE, World, budget, has_tree, processes_of, provider, until


@pytest.fixture(params=["cgroup", "bare"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "cgroup" and not has_tree():
        pytest.skip("no writable cgroup v2 with cgroup.kill on this machine")
    ground = BARE if request.param == "bare" else None
    found = World(tmp_path / "root", provider(tmp_path / "root", ground=ground))
    yield found
    found.end()


def test_output_and_exit_code_are_kept(world: World) -> None:
    seen = world.run("e1", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (seen.stdout, seen.stderr) == (b"out\n", b"err\n")
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code) == (ExitCause.EXITED, 7)
    assert (seen.exit.stdout_bytes, seen.exit.stderr_bytes) == (4, 4)


def test_a_command_sees_exactly_the_variables_it_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "x")
    world.config = {"env": {"FROM_CONFIG": "1", "BOTH": "config"}}
    seen = world.run("e1", "env", "-0", env={"MINE": "a b\nc", "BOTH": "run"})
    got = dict(line.split("=", 1) for line in seen.stdout.decode().split("\0") if line)
    path = str(world.path)
    assert got == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{path}/home",
        "TMPDIR": f"{path}/tmp",
        "LANG": "C.UTF-8",
        "FROM_CONFIG": "1",
        "BOTH": "run",
        "MINE": "a b\nc",
    }


def test_arguments_are_not_interpreted(world: World) -> None:
    odd = ["$HOME", "`id`", "a b", "*", "", "'\"", "\n", "é", "\udcff"]
    seen = world.run("e1", "printf", "%s|", *odd)
    assert seen.stdout == b"".join(os.fsencode(part) + b"|" for part in odd)


def test_stdin_of_two_megabytes_arrives_whole(world: World) -> None:
    data = os.urandom(2 * 1024 * 1024)
    seen = world.start("e1", "cat", stdin=data)
    assert seen.outcome is StartOutcome.STARTED
    until(lambda: world.look("e1").state is ExecutionState.EXITED, "it has exited")
    assert world.look("e1", limit=4_000_000).stdout == data


def test_output_beyond_the_cap_is_counted_and_not_stored(world: World) -> None:
    script = "head -c 100000000 /dev/zero; echo e >&2"
    seen = world.run("e1", "sh", "-c", script, output_cap_bytes=1000)
    assert seen.exit is not None
    assert (seen.exit.stdout_bytes, seen.exit.stdout_dropped) == (1000, 99_999_000)
    assert (world.path / "ctl/x/e1/out").stat().st_size == 1000
    assert seen.stderr == b"e\n"


def test_output_is_readable_while_the_command_runs(world: World) -> None:
    world.start("e1", "sh", "-c", "printf '\\377\\000live'; sleep 1000")
    world.wait_output("e1", b"\xff\x00live")
    chunk = world.provider.read(
        world.meant(),
        execution_id="e1",
        handle={},
        stream=Stream.STDOUT,
        offset=2,
        limit_bytes=2,
        budget=budget(),
    )
    assert (chunk.data, chunk.next_offset, chunk.eof) == (b"li", 4, False)


@pytest.mark.parametrize(
    ("argv", "cause", "code"),
    [
        (["no-such-command"], ExitCause.NOT_FOUND, 127),
        (["./no/such"], ExitCause.NOT_FOUND, 127),
        (["/etc/passwd"], ExitCause.NOT_EXECUTABLE, 126),
        (["/etc"], ExitCause.NOT_EXECUTABLE, 126),
    ],
)
def test_what_cannot_be_executed_says_why(
    world: World, argv: list[str], cause: ExitCause, code: int
) -> None:
    seen = world.run("e1", *argv)
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code) == (cause, code)
    assert argv[0].encode() in seen.stderr


def test_a_missing_directory_is_told_apart(world: World) -> None:
    seen = world.run("e1", "true", cwd="nowhere")
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code) == (ExitCause.CWD, None)


@pytest.mark.parametrize("cwd", ["..", "../ctl", "/", "/etc", "link"])
def test_a_directory_outside_of_the_sandbox_is_refused(world: World, cwd: str) -> None:
    world.acquire()
    (world.path / "work/link").symlink_to("/etc")
    if cwd == "..":
        # The sandbox's own top is still inside.
        assert world.run("e1", "pwd", cwd=cwd).stdout.strip() == str(world.path).encode()
        return
    with pytest.raises(ConfigRejectedError, match="cwd"):
        world.start("e1", "true", cwd=cwd)


def test_a_nul_in_an_argument_is_refused(world: World) -> None:
    with pytest.raises(ConfigRejectedError, match="NUL"):
        world.start("e1", "echo", "a\0b")


def test_a_signal_is_told_apart_from_a_code(world: World) -> None:
    seen = world.run("e1", "sh", "-c", "kill -SEGV $$")
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code) == (ExitCause.SIGNALLED, None)
    assert seen.exit.signal == signal.SIGSEGV


def test_signals_have_their_default_meaning_for_a_command(world: World) -> None:
    seen = world.run("e1", "cat", "/proc/self/status")
    masks = dict(line.split(":\t", 1) for line in seen.stdout.decode().splitlines())
    of_the_c_library = 0b11 << 31
    assert int(masks["SigIgn"], 16) & ~of_the_c_library == 0
    assert int(masks["SigBlk"], 16) == 0


def test_a_timeout_ends_a_tree_that_ignores_term_and_left_its_session(world: World) -> None:
    script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000' &); echo up; sleep 1000"
    seen = world.run(
        "e1",
        "sh",
        "-c",
        script,
        timeout=timedelta(seconds=0.3),
        grace=timedelta(seconds=0.1),
    )
    assert seen.exit is not None
    assert seen.exit.cause is ExitCause.TIMEOUT
    assert processes_of(world.root) == []


def test_cancel_lets_a_command_clean_up_within_its_grace(world: World) -> None:
    world.start(
        "e1", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep .1; done"
    )
    world.wait_output("e1", b"up")
    settled = world.cancel("e1", grace_s=10)
    assert settled.state is SettledState.EXITED
    assert settled.exit is not None
    assert settled.exit.cause is ExitCause.CANCELLED
    assert world.look("e1").stdout == b"up\nbye\n"
    assert world.cancel("e1") == settled


def test_cancel_before_a_start_leaves_a_tombstone(world: World) -> None:
    world.acquire()
    assert world.cancel("e1").state is SettledState.NEVER_STARTED
    assert world.start("e1", "true").outcome is StartOutcome.CANCELLED
    assert world.settle("e1").state is SettledState.NEVER_STARTED


def test_an_exit_that_came_first_stays(world: World) -> None:
    world.run("e1", "sh", "-c", "exit 5")
    settled = world.cancel("e1")
    assert settled.exit is not None
    assert (settled.exit.cause, settled.exit.code) == (ExitCause.EXITED, 5)


def test_eight_starts_of_one_id_run_it_once(world: World, tmp_path: Path) -> None:
    world.acquire()
    mark = tmp_path / "mark"
    outcomes: list[StartOutcome] = []

    def start() -> None:
        seen = world.start("e1", "sh", "-c", f"echo x >>{mark}; sleep 0.1")
        outcomes.append(seen.outcome)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.wait("e1")
    assert mark.read_text() == "x\n"
    assert sorted(outcomes) == [StartOutcome.ADOPTED] * 7 + [StartOutcome.STARTED]


def test_a_stale_fence_starts_and_ends_nothing(world: World) -> None:
    world.start("e1", "sleep", "1000")
    world.wait_running("e1")
    world.provider.seize(world.meant(), fence=2, budget=budget())
    for call in (lambda: world.start("e2", "true"), lambda: world.cancel("e1")):
        with pytest.raises(StaleFenceError):
            call()
    assert world.look("e1").state is ExecutionState.RUNNING
    assert isinstance(world.look("e2").error, ExecutionUnknownError)


def test_a_supervisor_that_was_killed_is_lost_with_its_whole_tree(world: World) -> None:
    world.start("e1", "sh", "-c", "sleep 1000 & echo up; sleep 1000")
    world.wait_output("e1", b"up")
    os.kill(int(world.go("e1")[1]), signal.SIGKILL)
    until(lambda: world.look("e1").state is ExecutionState.UNCLEAR, "it is unclear")
    assert world.settle("e1").state is SettledState.LOST
    assert processes_of(world.root) == []
    assert world.look("e1").stdout == b"up\n"


def test_settle_refuses_while_the_supervisor_lives(world: World) -> None:
    world.start("e1", "sleep", "1000")
    world.wait_running("e1")
    with pytest.raises(UnavailableError):
        world.settle("e1")


def test_a_stopped_supervisor_is_woken_to_write_down_the_end(world: World) -> None:
    world.start("e1", "sleep", "1000")
    world.wait_running("e1")
    os.kill(int(world.go("e1")[1]), signal.SIGSTOP)
    assert world.cancel("e1").state is SettledState.EXITED
    assert processes_of(world.root) == []


def test_what_outlives_its_leader_ends_soon_after_it(world: World) -> None:
    seen = world.run("e1", "sh", "-c", "sleep 1000 & echo x")
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code) == (ExitCause.EXITED, 0)
    assert processes_of(world.root) == []


def test_the_sandbox_ends_its_command_by_itself(world: World) -> None:
    world.acquire(ttl=timedelta(seconds=0.4))
    world.start("e1", "sleep", "1000", grace=timedelta(0))
    seen = world.wait("e1")
    assert seen.exit is not None
    assert seen.exit.cause is ExitCause.EXPIRED


def test_a_renewal_keeps_a_command_alive_beyond_the_first_deadline(world: World) -> None:
    world.acquire(ttl=timedelta(seconds=0.5))
    world.start("e1", "sh", "-c", "sleep 0.8; echo done", grace=timedelta(0))
    world.provider.renew(world.meant(), fence=1, ttl=timedelta(minutes=5), budget=budget())
    assert world.wait("e1").stdout == b"done\n"


def test_exits_are_told_to_the_watcher_also_by_one_that_did_not_start_them(
    world: World,
) -> None:
    told: list[str] = []
    world.provider.watch(told.append)
    world.run("e1", "true")
    until(lambda: told == ["e1"], "the exit was told")
    second = provider(world.root)
    try:
        heard: list[str] = []
        second.watch(heard.append)
        world.start("e2", "sleep", "1000")
        world.wait_running("e2")
        item = PollItem(target=world.meant(), execution_id="e2", handle={})
        answers = second.poll([item], limit_bytes=10, budget=budget())
        assert answers[0].state is ExecutionState.RUNNING
        world.cancel("e2")
        until(lambda: heard == ["e2"], "the second one heard of it")
        answers = second.poll([item], limit_bytes=10, budget=budget())
        assert answers[0].state is ExecutionState.EXITED
    finally:
        second.close()


def test_forgetting_frees_the_output_and_keeps_the_end(world: World) -> None:
    world.run("e1", "echo", "x")
    world.provider.forget(world.meant(), fence=1, execution_id="e1", handle={}, budget=budget())
    assert not (world.path / "ctl/x/e1/out").exists()
    assert world.look("e1").state is ExecutionState.EXITED
    assert world.start("e1", "echo", "x").outcome is StartOutcome.ADOPTED


def test_no_secret_stands_on_disk_or_in_a_command_line(world: World) -> None:
    world.start(
        "e1", "sh", "-c", "echo up; sleep 1000", env={"TOKEN": "hush-1"}, stdin=b"hush-2"
    )
    world.wait_output("e1", b"up")
    for path in world.path.rglob("*"):
        assert b"hush" not in (path.read_bytes() if path.is_file() else b"")
    for line in processes_of(world.root):
        assert "hush" not in line


@pytest.mark.parametrize(("key", "value"), [("nofile", 64), ("fsize_mb", 1)])
def test_limits_of_each_process_hold(world: World, key: str, value: int) -> None:
    world.config = {key: value}
    if key == "nofile":
        assert world.run("e1", "sh", "-c", "ulimit -n").stdout == b"64\n"
    else:
        seen = world.run("e1", "sh", "-c", "head -c 2000000 /dev/zero >big; stat -c %s big")
        assert seen.stdout == b"1048576\n"


def test_running_out_of_memory_is_told_apart(world: World) -> None:
    world.config = {"memory_mb": 48}
    script = "import sys; x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096])"
    seen = world.run("e1", "python3", "-c", script, env={"PATH": os.environ["PATH"]})
    assert seen.exit is not None
    enforced = world.provider.describe().capabilities.memory is Enforcement.ENFORCED
    if enforced:
        assert (seen.exit.cause, seen.exit.signal) == (ExitCause.OOM, signal.SIGKILL)
    else:
        assert seen.exit.code not in {0, None}
