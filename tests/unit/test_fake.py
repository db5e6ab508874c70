"""The scriptable `fake`: its words, its clock, its faults, its world in files."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import (
    CapacityError,
    ConfigRejectedError,
    ProviderError,
    SandboxGoneError,
    UnavailableError,
)
from leasehold.provider import (
    Acquired,
    Budget,
    Command,
    ExecutionState,
    Exit,
    ExitCause,
    LeaseRef,
    Polled,
    PollItem,
    ReleaseMode,
    Sandbox,
    SandboxState,
    SettledState,
    StartOutcome,
    Target,
)
from leasehold.provider.fake import FakeProvider, make
from leasehold.provider.fake_world import World

TTL = timedelta(minutes=30)


@dataclass
class Stage:
    """One lease in a world whose clock we hold."""

    root: Path
    now: float = 1000.0
    naps: list[float] = field(default_factory=list)
    fence: int = 1
    sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        self.world = World(self.root, now=lambda: self.now)
        self.provider = FakeProvider(self.world, sleep=self.naps.append)
        self.lease = LeaseRef(id="lease-1", number=1, deployment="d")

    @property
    def target(self) -> Target:
        handle = self.sandbox.handle if self.sandbox else {}
        return Target(lease=self.lease, handle=handle, config={})

    def acquire(self, **more: Any) -> Sandbox:
        arguments = {"known": None, "ttl": TTL, "fence": self.fence, **more}
        self.sandbox = self.provider.acquire(
            self.lease, {"image": "x"}, budget=Budget(5), **arguments
        )
        return self.sandbox

    def start(self, *argv: str, name: str = "e1", **more: Any) -> StartOutcome:
        return self.provider.start(
            self.target,
            fence=self.fence,
            execution_id=name,
            command=replace(Command(argv=argv), **more),
            budget=Budget(5),
        ).outcome

    def look(self, name: str = "e1", **more: Any) -> Polled:
        item = PollItem(target=self.target, execution_id=name, handle={}, **more)
        return self.provider.poll([item], limit_bytes=10_000, budget=Budget(5))[0]

    def ended(self, name: str = "e1") -> Exit:
        exit_ = self.look(name).exit
        assert exit_ is not None
        return exit_

    def end(self, method: Callable[..., Any], name: str = "e1", **more: Any) -> Any:
        return method(
            self.target,
            fence=self.fence,
            execution_id=name,
            handle={},
            budget=Budget(5),
            **more,
        )

    def release(self, mode: ReleaseMode = ReleaseMode.DESTROY) -> None:
        self.provider.release(self.target, fence=self.fence, mode=mode, budget=Budget(5))

    def left(self) -> list[str]:
        found = [path.name for path in self.root.iterdir()] if self.root.exists() else []
        return [name for name in found if name not in {"sb", "faults", "capacity"}]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path / "world")
    yield found
    assert found.left() == [], "nothing but sandboxes is left in the world"


@pytest.mark.parametrize(
    ("argv", "cause", "code", "signal", "out", "err"),
    [
        (["true"], "exited", 0, None, b"", b""),
        (["false"], "exited", 1, None, b"", b""),
        (["exit", "3"], "exited", 3, None, b"", b""),
        (["signal", "9"], "signalled", None, 9, b"", b""),
        (["echo", "a", "b"], "exited", 0, None, b"a b\n", b""),
        (["print", "a→"], "exited", 0, None, "a→".encode(), b""),
        (["err", "oh"], "exited", 0, None, b"", b"oh\n"),
        (["cat"], "exited", 0, None, b"in\xff", b""),
        (["env"], "exited", 0, None, b"A=1\nB=2\n", b""),
        (["fill", "3"], "exited", 0, None, b"xxx", b""),
        (["echo", "a", "then", "exit", "4", "then", "true"], "exited", 4, None, b"a\n", b""),
        (["nonsense", "x"], "not_found", 127, None, b"", b"nonsense: not found\n"),
    ],
)  # fmt: skip
def test_a_command_is_told_by_its_words(
    stage: Stage, argv: list[str], cause: str, code: int, signal: int, out: bytes, err: bytes
) -> None:
    stage.acquire()
    assert stage.start(*argv, stdin=b"in\xff", env={"B": "2", "A": "1"}) == "started"
    seen = stage.look()
    assert seen.exit is not None
    assert (seen.exit.cause, seen.exit.code, seen.exit.signal) == (cause, code, signal)
    assert (seen.stdout, seen.stderr) == (out, err)


def test_a_sleep_ends_when_the_clock_says_so_and_no_process_ever_runs(stage: Stage) -> None:
    stage.acquire()
    stage.start("echo", "a", "then", "sleep", "2.5", "then", "echo", "b", "then", "exit", "3")
    assert stage.look().state is ExecutionState.RUNNING
    assert stage.look().stdout == b"a\n"
    stage.now += 2.4
    assert stage.look().state is ExecutionState.RUNNING
    stage.now += 0.2
    assert stage.look(stdout_offset=2).stdout == b"b\n"
    assert (stage.ended().code, stage.ended().duration_s) == (3, 2.5)


def test_a_timeout_strikes_at_its_time(stage: Stage) -> None:
    stage.acquire()
    stage.start("sleep", "9", "then", "echo", "late", timeout=timedelta(seconds=2))
    stage.now += 3
    assert (stage.ended().cause, stage.ended().code) == (ExitCause.TIMEOUT, None)
    assert stage.ended().duration_s == 2
    stage.now += 60
    assert stage.look().stdout == b""


def test_a_cancel_ends_it_now_and_keeps_what_it_said(stage: Stage) -> None:
    stage.acquire()
    stage.start("echo", "a", "then", "sleep", "9", "then", "echo", "b")
    stage.now += 1
    settled = stage.end(stage.provider.cancel, grace=timedelta(0))
    assert settled.exit.cause is ExitCause.CANCELLED
    stage.now += 60
    assert stage.look().stdout == b"a\n"
    assert stage.ended() == settled.exit


def test_output_beyond_the_cap_is_counted_and_takes_no_room(stage: Stage) -> None:
    stage.acquire()
    stage.start("fill", "100000000000", "then", "echo", "z", output_cap_bytes=1000)
    assert stage.look().stdout == b"x" * 1000
    assert (stage.ended().stdout_bytes, stage.ended().stdout_dropped) == (1000, 99_999_999_002)


def test_a_sandbox_ends_by_itself_on_the_worlds_clock(stage: Stage) -> None:
    stage.acquire()
    stage.now += TTL.total_seconds() - 1
    assert stage.world.sandboxes() == ["lease-1"]
    stage.now += 2
    assert stage.provider.inspect(stage.target, budget=Budget(1)).state is SandboxState.GONE
    assert stage.world.sandboxes() == []


def test_a_fault_comes_before_the_effect(stage: Stage) -> None:
    stage.world.script("acquire", fail="provider_unavailable", times=2)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="scripted"):
            stage.acquire()
    assert stage.world.sandboxes() == []
    assert stage.acquire().outcome is Acquired.CREATED


def test_a_lost_answer_comes_after_the_effect(stage: Stage) -> None:
    stage.world.script("acquire", fail="provider_unavailable", after_effect=True)
    with pytest.raises(UnavailableError):
        stage.acquire()
    assert stage.world.sandboxes() == ["lease-1"]
    assert stage.acquire().outcome is Acquired.ADOPTED
    stage.world.script("start", fail="provider_timeout", after_effect=True)
    with pytest.raises(ProviderError) as caught:
        stage.start("true")
    assert caught.value.code == "provider_timeout"
    assert stage.world.starts("e1") == 1
    assert stage.start("true") is StartOutcome.ADOPTED
    assert stage.world.starts("e1") == 1


def test_a_delay_is_slept_and_each_fault_is_met_once(stage: Stage) -> None:
    stage.world.script("probe", delay_s=3.5, times=2)
    for _ in range(3):
        stage.provider.probe({}, budget=Budget(1))
    assert stage.naps == [3.5, 3.5]


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("probe", lambda s: s.provider.probe({}, budget=Budget(1))),
        ("validate", lambda s: s.provider.validate({}, budget=Budget(1))),
        ("acquire", lambda s: s.acquire()),
        ("seize", lambda s: s.provider.seize(s.target, fence=1, budget=Budget(1))),
        ("inspect", lambda s: s.provider.inspect(s.target, budget=Budget(1))),
        ("renew", lambda s: s.provider.renew(s.target, fence=1, ttl=TTL, budget=Budget(1))),
        ("release", lambda s: s.release()),
        ("list_owned", lambda s: list(s.provider.list_owned("d", config={}, budget=Budget(1)))),
        ("start", lambda s: s.start("true", name="e2")),
        ("poll", lambda s: s.look()),
        ("settle", lambda s: s.end(s.provider.settle)),
        ("cancel", lambda s: s.end(s.provider.cancel, grace=TTL)),
        ("forget", lambda s: s.end(s.provider.forget)),
    ],
)
def test_every_method_can_be_made_to_fail(
    stage: Stage, method: str, call: Callable[[Stage], object]
) -> None:
    stage.acquire()
    stage.start("true")
    stage.world.script(method, fail="auth_failed")
    with pytest.raises(ProviderError) as caught:
        call(stage)
    assert caught.value.code == "auth_failed"
    call(stage)


def test_a_fault_is_met_by_another_process(stage: Stage) -> None:
    stage.world.script("probe", fail="provider_unavailable")
    pid = os.fork()
    if pid == 0:
        try:
            make({"root": stage.root}).probe({}, budget=Budget(1))
        except UnavailableError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    stage.provider.probe({}, budget=Budget(1))


def test_a_full_world_says_so(stage: Stage) -> None:
    stage.world.set_capacity(1)
    assert stage.provider.probe({}, budget=Budget(1)).capacity == 1
    stage.acquire()
    assert stage.acquire().outcome is Acquired.ADOPTED
    stage.lease = replace(stage.lease, id="lease-2")
    with pytest.raises(CapacityError):
        stage.acquire()


def test_a_lost_sandbox_is_gone_with_what_ran_in_it(stage: Stage) -> None:
    stage.acquire()
    stage.start("sleep", "60")
    assert stage.world.executions() == ["e1"]
    stage.world.lose("lease-1")
    assert isinstance(stage.look().error, SandboxGoneError)
    assert stage.world.sandboxes() == []
    assert stage.world.executions() == []
    with pytest.raises(SandboxGoneError):
        stage.start("true", name="e2")
    with pytest.raises(SandboxGoneError):
        stage.acquire(known=stage.target.handle)
    assert stage.world.sandboxes() == []
    stage.release()


def test_a_destroy_where_nothing_was_ever_made_is_a_success(stage: Stage) -> None:
    stage.release()
    assert not stage.root.exists()


def test_many_processes_start_one_execution_once(stage: Stage, tmp_path: Path) -> None:
    stage.acquire()
    mark = tmp_path / "mark"
    read_end, write_end = os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(write_end)
                os.read(read_end, 1)
                stage.start("mark", str(mark))
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    os.close(read_end)
    os.close(write_end)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 8
    assert mark.read_text() == "e1\n"
    assert stage.world.starts("e1") == 1


def test_a_tombstone_is_no_start(stage: Stage) -> None:
    stage.acquire()
    settled = stage.end(stage.provider.cancel, grace=timedelta(0))
    assert settled.state is SettledState.NEVER_STARTED
    assert stage.start("true") is StartOutcome.CANCELLED
    assert stage.world.starts("e1") == 0
    assert stage.world.executions() == ["e1"]


def test_many_that_renew_at_once_never_lose_the_sandbox(stage: Stage) -> None:
    stage.acquire()

    def renew(_: int) -> float | None:
        provider = FakeProvider(stage.world)
        renewal = provider.renew(stage.target, fence=1, ttl=TTL, budget=Budget(5))
        seen = provider.inspect(stage.target, budget=Budget(5))
        assert seen.state is SandboxState.READY
        return renewal.expires_in_s

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(renew, range(200))) == {TTL.total_seconds()}


def test_a_suspended_sandbox_takes_no_start_until_it_is_resumed(stage: Stage) -> None:
    stage.acquire()
    stage.start("sleep", "60")
    stage.release(ReleaseMode.SUSPEND)
    assert stage.provider.inspect(stage.target, budget=Budget(1)).state is SandboxState.STOPPED
    assert stage.ended().cause is ExitCause.CANCELLED
    with pytest.raises(UnavailableError, match="suspended"):
        stage.start("true", name="e2")
    assert stage.acquire(known=stage.target.handle).outcome is Acquired.RESUMED
    assert stage.start("true", name="e2") is StartOutcome.STARTED


@pytest.mark.parametrize("cwd", ["..", "/", "/etc", "a/../../b", "/work/.."])
def test_a_working_directory_outside_is_refused(stage: Stage, cwd: str) -> None:
    stage.acquire()
    with pytest.raises(ConfigRejectedError, match="outside"):
        stage.start("true", cwd=cwd)
    assert stage.start("true", cwd="/work/in", name="e2") is StartOutcome.STARTED
    assert stage.start("true", cwd="in/side", name="e3") is StartOutcome.STARTED


def test_a_config_gets_its_defaults_and_no_unknown_key(stage: Stage) -> None:
    found = stage.provider.validate({}, budget=Budget(1))
    assert found.config == {"image": "ubuntu:24.04", "reuse_lease": True}
    wrong = stage.provider.validate({"imgae": "x", "reuse_lease": "yes"}, budget=Budget(1))
    assert {problem.path for problem in wrong.problems} == {"imgae", "reuse_lease"}
    assert "did you mean 'image'?" in repr(wrong.problems)


def test_who_adopts_an_execution_leaves_the_mark_that_its_starter_died_before(
    tmp_path: Path,
) -> None:
    stage, mark = Stage(tmp_path / "world"), tmp_path / "mark"
    stage.acquire()
    assert stage.start("mark", str(mark)) is StartOutcome.STARTED
    mark.unlink()
    for _ in range(2):
        assert stage.start("mark", str(mark)) is StartOutcome.ADOPTED
        assert mark.read_text() == "e1\n"
