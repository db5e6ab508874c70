"""
The supervisor is killed before and after each of its effects, in the verbs that reach it.

The list of points is made by running: a traced copy tells which marked lines a scenario
reaches. A line that no scenario reaches fails the suite.
"""

import io
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from leasehold.provider import (
    Command,
    ExecutionState,
    ExitCause,
    ProviderError,
    ReleaseMode,
    Settled,
    SettledState,
    StaleFenceError,
    StartOutcome,
    supervisor,
)
from supervised import Bench, Grouped, budget, lines_named, until

Scenario = Callable[[Bench, Grouped], object]


def _plain(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 0.05", "echo done"), by=by)
    until(lambda: not _may_still_end(bench) or None)


def _grouped(bench: Bench, by: Grouped) -> None:
    # A plain directory: what the line does there is one write, whatever the file system.
    by.group = bench.root / "group"
    by.group.mkdir()
    _plain(bench, by)


def _missing(bench: Bench, by: Grouped) -> None:
    bench.start(Command(argv=("no-such-command",)), by=by)
    until(lambda: not _may_still_end(bench) or None)


def _timed_out(bench: Bench, by: Grouped) -> None:
    command = bench.counting("trap '' TERM", "sleep 60 & wait", "wait")
    slow = Command(argv=command.argv, timeout=timedelta(seconds=0.1), grace=timedelta(0))
    bench.start(slow, by=by)
    until(lambda: not _may_still_end(bench) or None)


def _cancelled(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    bench.cancel(by=by, fence=2)


def _settled_after_a_death(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    os.kill(int((bench.control / "x/x1/super").read_text().split()[0]), signal.SIGKILL)
    until(lambda: bench.poll().state is ExecutionState.UNCLEAR or None)
    bench.settle(by=by, fence=2)


def _never_started(bench: Bench, by: Grouped) -> None:
    bench.settle(by=by, fence=2)


def _forgotten(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting())
    bench.ended()
    by.forget(bench.target, fence=1, execution_id="x1", handle={}, budget=budget())


def _seized(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 0.05"))
    by.install(bench.target, fence=2, budget=budget())


def _destroyed(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 60"))
    until(lambda: bench.starts() or None)
    by.release(bench.target, fence=2, mode=ReleaseMode.DESTROY, budget=budget())


def _files(bench: Bench, by: Grouped) -> None:
    bench.start(bench.counting("sleep 0.05"))
    to = bench.target
    file, tree = io.BytesIO(b"data"), io.BytesIO(_tar(b"data"))
    by.put(to, "new/there", file, fence=1, tree=False, mode=0o600, budget=budget())
    by.put(to, "tree", tree, fence=1, tree=True, mode=0, budget=budget())
    assert b"".join(by.get(bench.target, "tree", tree=True, budget=budget()))


def _tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__.removeprefix("_"): scenario
    for scenario in (
        _plain,
        _grouped,
        _missing,
        _timed_out,
        _cancelled,
        _settled_after_a_death,
        _never_started,
        _forgotten,
        _seized,
        _destroyed,
        _files,
    )
}


def _may_still_end(bench: Bench) -> bool:
    """Say whether waiting may change anything: an end, or the beginning of one."""
    polled = bench.poll()
    if polled.error or polled.exit or polled.state is ExecutionState.UNCLEAR:
        return False
    # One look over /proc may miss a process that is born or replaced meanwhile.
    return polled.state is ExecutionState.RUNNING or any(bench.processes() for _ in range(4))


@cache
def _points() -> dict[tuple[int, str], str]:
    """Map each point to the first scenario that reaches its line."""
    points: dict[tuple[int, str], str] = {}
    for name, scenario in SCENARIOS.items():
        root = Path(mkdtemp(prefix="leasehold-trace-"))
        try:
            bench = Bench(root)
            trace = root / "trace"
            scenario(
                bench, bench.through(supervisor.with_trace(supervisor.script(), str(trace)))
            )
            with suppress(ProviderError):
                bench.whole.release(
                    bench.target, fence=9, mode=ReleaseMode.DESTROY, budget=budget()
                )
            for index in {int(line) for line in trace.read_text().split()}:
                for when in ("before", "after"):
                    points.setdefault((index, when), name)
        finally:
            shutil.rmtree(root)
    return points


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "point" in metafunc.fixturenames:
        lines = supervisor.effect_lines(supervisor.script())
        metafunc.parametrize(
            ("point", "when"),
            [
                pytest.param(line, when, id=f"{line.index}-{line.name}-{when}")
                for line in lines
                for when in ("before", "after")
            ],
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    with suppress(ProviderError):
        bench.whole.release(
            bench.target, fence=10**18, mode=ReleaseMode.DESTROY, budget=budget()
        )
    bench.assert_quiet()


def test_a_death_at_any_point_means_one_start_or_a_proven_end(
    bench: Bench, tmp_path: Path, point: supervisor.EffectLine, when: str
) -> None:
    assert (point.index, when) in _points(), f"no scenario reaches the line {point.name}"
    scenario = _points()[point.index, when]
    note = tmp_path / "reached"
    mortal = supervisor.with_kill(supervisor.script(), point.index, when, note=str(note))
    with suppress(ProviderError):
        SCENARIOS[scenario](bench, bench.through(mortal))

    assert note.exists() or when == "after", f"{scenario} did not come to {point.name}"
    if scenario == "destroyed":
        bench.whole.release(bench.target, fence=2, mode=ReleaseMode.DESTROY, budget=budget())
        assert bench.starts() == 1
        assert list(bench.path.parent.iterdir()) == []
        return
    settled = _recovered(bench, scenario)
    _check(bench, settled, scenario)
    bench.assert_quiet()
    assert bench.settle(fence=4) == settled
    repeated = bench.start(bench.counting(), fence=4).outcome
    assert repeated is (
        StartOutcome.CANCELLED
        if settled.state is SettledState.NEVER_STARTED
        else StartOutcome.ADOPTED
    )
    _check(bench, settled, scenario)


def _recovered(bench: Bench, scenario: str) -> Settled:
    """Do what the next holder does: seize, repeat the call, wait while that helps, settle."""
    bench.whole.seize(bench.target, fence=3, budget=budget())
    bench.start(bench.counting(), fence=3)
    if scenario == "cancelled":
        return bench.cancel(fence=3)
    until(lambda: not _may_still_end(bench) or None)
    return bench.settle(fence=3)


def _check(bench: Bench, settled: Settled, scenario: str) -> None:
    match settled.state:
        case SettledState.NEVER_STARTED:
            assert bench.starts() == 0
        case SettledState.LOST:
            assert bench.starts() <= 1
        case SettledState.EXITED:
            assert settled.exit
            if settled.exit.cause is ExitCause.EXITED:
                assert bench.starts() == 1
            assert bench.starts() <= 1
            polled = bench.poll()
            assert scenario == "forgotten" or len(polled.stdout) == settled.exit.stdout_bytes


def test_a_caller_paused_after_its_claim_starts_nothing_once_it_was_settled(
    bench: Bench, tmp_path: Path
) -> None:
    (spawn,) = lines_named("spawn")
    note = tmp_path / "paused"
    script = supervisor.with_kill(
        supervisor.script(), spawn, "before", signal="STOP", note=str(note)
    )
    late = threading.Thread(
        target=bench.start, args=(bench.counting(),), kwargs={"by": bench.through(script)}
    )
    late.start()
    until(lambda: note.exists() or None)
    assert bench.poll().state is ExecutionState.STARTING
    assert bench.settle(fence=2).state is SettledState.NEVER_STARTED
    _wake(bench)
    late.join(10)
    bench.assert_quiet()
    assert bench.starts() == 0
    assert bench.settle(fence=2).state is SettledState.NEVER_STARTED


def test_a_command_paused_before_go_never_starts_after_it_was_declared_so(
    bench: Bench, tmp_path: Path
) -> None:
    (go,) = lines_named("go")
    note = tmp_path / "paused"
    script = supervisor.with_kill(
        supervisor.script(), go, "before", signal="STOP", note=str(note)
    )
    bench.start(bench.counting(), by=bench.through(script))
    until(lambda: note.exists() or None)
    assert bench.poll().state is ExecutionState.STARTING
    assert bench.settle(fence=2).state is SettledState.NEVER_STARTED
    bench.assert_quiet()
    assert bench.starts() == 0


def test_a_fence_that_came_after_the_claim_stops_the_start(
    bench: Bench, tmp_path: Path
) -> None:
    (spawn,) = lines_named("spawn")
    note = tmp_path / "paused"
    script = supervisor.with_kill(
        supervisor.script(), spawn, "before", signal="STOP", note=str(note)
    )
    late = threading.Thread(
        target=bench.start, args=(bench.counting(),), kwargs={"by": bench.through(script)}
    )
    late.start()
    until(lambda: note.exists() or None)
    bench.whole.seize(bench.target, fence=2, budget=budget())
    _wake(bench)
    late.join(10)
    until(lambda: bench.poll().state is ExecutionState.UNCLEAR or None)
    assert bench.starts() == 0
    assert bench.settle(fence=2).state is SettledState.NEVER_STARTED


def _started_in_background(bench: Bench, by: Grouped) -> threading.Thread:
    late = threading.Thread(target=bench.start, args=(bench.counting(),), kwargs={"by": by})
    late.start()
    return late


def _wake(bench: Bench) -> None:
    for line in bench.processes():
        with suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGCONT)


def test_an_old_fence_changes_nothing(bench: Bench) -> None:
    bench.whole.seize(bench.target, fence=7, budget=budget())
    for act in (
        lambda: bench.start(bench.counting(), fence=6),
        lambda: bench.settle(fence=6),
        lambda: bench.cancel(fence=6),
        lambda: bench.whole.seize(bench.target, fence=6, budget=budget()),
        lambda: bench.whole.release(
            bench.target, fence=6, mode=ReleaseMode.DESTROY, budget=budget()
        ),
    ):
        with pytest.raises(StaleFenceError):
            act()
    assert list((bench.control / "x").iterdir()) == []


def test_an_old_fence_is_cleared_away_and_a_newer_one_never(bench: Bench) -> None:
    for fence in (3, 2**62, 10):
        with suppress(StaleFenceError):
            bench.whole.seize(bench.target, fence=fence, budget=budget())
    assert max(path.name for path in (bench.control / "fence").iterdir()) == f"{2**62:020d}"


def test_a_watchdog_whose_sandbox_was_taken_away_ends(bench: Bench) -> None:
    # Whoever kills a supervisor, and takes its directory away, may have missed this one.
    bench.start(bench.counting("exec sleep 60"))
    until(lambda: bench.starts() or None)
    (place,) = bench.root.glob("**/x/x1")
    for name in ("super", "child"):
        os.kill(int((place / name).read_text().split()[0]), signal.SIGKILL)
    assert bench.processes()
    shutil.rmtree(place)
    until(lambda: not bench.processes() or None)
