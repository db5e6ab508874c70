"""
Checks: a caller is killed with SIGKILL at every point of a call; another one repeats it.

The points are listed by running: the plugin brackets its effects with `effect(…)`, the suite
adds the moments before the call and after its return. A plugin without brackets is still
killed at those two; and calls that carry many bytes are also killed somewhere in their middle.
"""

import io
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from threading import Timer
from typing import Final

from leasehold.provider.budget import boot_time
from leasehold.provider.conformance.catalogue import check, files, posix, suspend
from leasehold.provider.conformance.harness import Case, ConformanceError, must
from leasehold.provider.contract import (
    Acquired,
    ExecutionState,
    ReleaseMode,
    SandboxState,
    SettledState,
    StartOutcome,
)
from leasehold.seams import effect, listening

_MOST_POINTS: Final = 200
_BIG: Final = 8 * 1024 * 1024
_PARTS: Final = 4
"""At so many moments of its usual duration a call is killed in its middle."""

_PATIENCE_S: Final = 0.3
_PAUSE_S: Final = 0.01
_UNDECIDED: Final = frozenset({ExecutionState.STARTING, ExecutionState.RUNNING})


def in_a_child(
    act: Callable[[], object], *, kill_at: int = _MOST_POINTS, after_s: float | None = None
) -> tuple[list[str], bool]:
    """
    Run `act` in a forked process that dies at its `kill_at`th point, or `after_s` seconds.

    Returns the points that it passed, and whether it was killed.
    """
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of threads; the child only needs what it makes itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_the_child(act, kill_at, write_end)
    os.close(write_end)
    # The child is not waited for before it said all, so the number is still its own.
    killer = Timer(after_s or 0, os.kill, (pid, signal.SIGKILL))
    if after_s is not None:
        killer.start()
    with os.fdopen(read_end) as lines:
        said = lines.read().splitlines()
    killer.cancel()
    if killer.is_alive():
        killer.join()
    _, status = os.waitpid(pid, 0)
    if said and said[-1].startswith("!"):
        raise ConformanceError(f"the call failed in a process of its own: {said[-1][1:]}")
    return said, os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _be_the_child(act: Callable[[], object], kill_at: int, tell: int) -> None:
    passed = 0

    def hook(name: str) -> None:
        nonlocal passed
        if passed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1
        os.write(tell, f"{name}\n".encode())

    try:
        with listening(hook), effect("call"):
            act()
    except BaseException as error:  # noqa: BLE001  told to the parent
        line = f"!{type(error).__name__}: {error}".replace("\n", " ")
        os.write(tell, line.encode())
    finally:
        os._exit(0)


def killed_everywhere(
    case: Case, prepare: Callable[[Case], object], act: Callable[[Case], object]
) -> Iterator[tuple[Case, str]]:
    """
    Yield a sandbox for each point at which the caller of `act` was killed.

    What is yielded is what the next process knows: the lease, and the handle that `prepare`
    got; its fence is higher.
    """
    for index in range(_MOST_POINTS):
        one = case.another()
        prepare(one)
        points, killed = in_a_child(lambda one=one: act(one.again()), kill_at=index)  # type: ignore[misc]  # bound now
        after = one.again()
        after.fence += 10
        where = f"killed after {points[-1] if points else 'nothing'}"
        try:
            yield after, where
        except ConformanceError as error:
            raise ConformanceError(f"{where}: {error}") from error
        after.release()
        must(not after.owned(), f"{where}: a destroy leaves nothing to list")
        case.dismiss(one)
        if not killed:
            must(index > 0, "at least one point")
            return
    raise ConformanceError(f"more than {_MOST_POINTS} points in one call")


def killed_in_the_middle(
    case: Case, prepare: Callable[[Case], object], act: Callable[[Case], object]
) -> Iterator[tuple[Case, str]]:
    """Yield a sandbox for each of some moments at which the caller of `act` was killed."""
    whole = case.another()
    prepare(whole)
    began = boot_time()
    in_a_child(lambda: act(whole.again()))
    usual_s = boot_time() - began
    for part in range(1, _PARTS + 1):
        one = case.another()
        prepare(one)
        in_a_child(partial(act, one.again()), after_s=usual_s * part / _PARTS)
        after = one.again()
        after.fence += 10
        yield after, f"killed after {part}/{_PARTS} of its time"


def _nothing(_case: Case) -> None:
    return


def _ready(case: Case) -> None:
    case.acquire()


def _running(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one", seconds=60))
    case.running("one")


def _suspended(case: Case) -> None:
    case.acquire()
    case.release(ReleaseMode.SUSPEND)
    case.fence += 1


@check()
def a_caller_killed_in_acquire_leaves_none_or_one_that_is_adopted(case: Case) -> None:
    for one, where in killed_everywhere(case, _nothing, Case.acquire):
        before = one.owned()
        must(len(before) <= 1, f"{where}: at most one sandbox")
        sandbox = one.acquire()
        must(len(one.owned()) == 1, f"{where}: one sandbox after the repeated call")
        expected = Acquired.ADOPTED if before else Acquired.CREATED
        must(sandbox.outcome is expected, f"{where}: {sandbox.outcome}, listed were {before}")
        must(one.inspect().state is SandboxState.READY, f"{where}: ready")
        one.start("one", one.counted("one"))
        must(one.wait("one").stdout == b"out", f"{where}: it works")


@check()
def a_caller_killed_in_start_has_started_it_once_or_not_at_all(case: Case) -> None:
    def start(one: Case) -> None:
        one.start("one", one.counted("one", text="all of it", seconds=0.1))

    for one, where in killed_everywhere(case, _ready, start):
        one.seize()
        outcome = one.start("one", one.counted("one", text="all of it", seconds=0.1)).outcome
        must(outcome is not StartOutcome.CANCELLED, f"{where}: nobody cancelled it")
        done = one.fate("one")
        must(one.starts("one") == (0 if done is None else 1), f"{where}: started as it is told")
        if done is not None:
            must(
                (done.exit.code, done.stdout) == (0, b"all of it"), f"{where}: its end: {done}"
            )


@check()
def a_start_whose_caller_was_killed_can_be_proven_never_to_happen(case: Case) -> None:
    def start(one: Case) -> None:
        one.start("one", one.counted("one"))

    for one, where in killed_everywhere(case, _ready, start):
        one.seize()
        settled = one.cancel("one")
        before = one.starts("one")
        must(settled.state is not SettledState.LOST, f"{where}: nothing was killed but callers")
        if settled.state is SettledState.NEVER_STARTED:
            must(before == 0, f"{where}: what never started has not run")
        outcome = one.start("one", one.counted("one")).outcome
        must(outcome is not StartOutcome.STARTED, f"{where}: no start after the proof")
        must(one.settle("one") == settled, f"{where}: the proof stands")
        must(one.starts("one") == before, f"{where}: nothing has run since")


@check()
def a_running_command_does_not_notice_the_death_of_its_caller(case: Case) -> None:
    def start(one: Case) -> None:
        one.start("one", one.counted("one", text="still there", seconds=0.3))
        one.running("one", b"still there")

    _ready(case)
    _, killed = in_a_child(lambda: start(case.again()), kill_at=_MOST_POINTS)
    must(not killed, "the caller left by itself")
    after = case.again()
    must(after.look("one").state is not ExecutionState.UNCLEAR, "it is accounted for")
    done = after.wait("one")
    must((done.exit.code, done.stdout) == (0, b"still there"), f"re-attached: {done}")


@check()
def a_caller_killed_in_cancel_is_followed_by_one_that_ends_it(case: Case) -> None:
    for one, where in killed_everywhere(case, _running, lambda one: one.cancel("one")):
        one.seize()
        settled = one.cancel("one")
        must(settled.state is SettledState.EXITED, f"{where}: {settled}")
        must(settled.exit and settled.exit.cause == "cancelled", f"{where}: {settled.exit}")
        must(one.ended("one").stdout == b"out", f"{where}: the output is kept")
        must(one.starts("one") == 1, f"{where}: one start")


@check()
def a_caller_killed_in_destroy_is_followed_by_one_that_finishes_it(case: Case) -> None:
    for one, where in killed_everywhere(case, _running, Case.release):
        must(len(one.owned()) <= 1, f"{where}: at most one is listed")
        one.release()
        must(one.inspect().state is SandboxState.GONE, f"{where}: gone")
        must(not one.owned(), f"{where}: not listed")
    leaks = case.harness.leaks
    case.until(lambda: not leaks(), "nothing is left of the destroyed")


@check()
def a_caller_killed_in_seize_or_renew_leaves_a_sandbox_that_works(case: Case) -> None:
    def takes_over(one: Case) -> None:
        one.seize(one.fence + 1)
        one.renew()

    for one, where in killed_everywhere(case, _running, takes_over):
        one.seize()
        must(one.inspect().state is SandboxState.READY, f"{where}: ready")
        must(one.look("one").state is ExecutionState.RUNNING, f"{where}: it runs on")
        one.renew()


@check(posix)
def a_caller_killed_while_it_hands_over_a_big_command_leaves_no_half_of_it(case: Case) -> None:
    command = case.shell("wc -c; echo x >>starts-one", stdin=b"x" * _BIG)

    def start(one: Case) -> None:
        one.start("one", command)

    for one, where in killed_in_the_middle(case, _ready, start):
        # What was handed over may go on by itself, until the next holder's fence is there.
        over = boot_time() + _PATIENCE_S
        while one.poll("one").state in _UNDECIDED and boot_time() < over:
            one.budget().wait(_PAUSE_S)
        one.seize()
        one.start("one", command)
        done = one.fate("one")
        must(one.starts("one") == (0 if done is None else 1), f"{where}: as it is told")
        if done is not None:
            must(done.stdout.strip() == str(_BIG).encode(), f"{where}: it was given {done}")


@check(files)
def a_caller_killed_in_put_leaves_the_old_file_or_the_new_one(case: Case) -> None:
    old, new = b"old" * 1000, b"new" * (_BIG // 3)

    def put(one: Case, data: bytes = new) -> None:
        one.provider.put(
            one.target,
            "file",
            io.BytesIO(data),
            fence=one.fence,
            tree=False,
            mode=0o600,
            budget=one.budget(),
        )

    def get(one: Case) -> bytes:
        parts = one.provider.get(one.target, "file", tree=False, budget=one.budget())
        return b"".join(parts)

    def prepare(one: Case) -> None:
        one.acquire()
        put(one, old)

    for killed in (killed_everywhere, killed_in_the_middle):
        for one, where in killed(case, prepare, put):
            must(get(one) in {old, new}, f"{where}: a half of it can be read")
            put(one)
            must(get(one) == new, f"{where}: the repeated call puts it there")


@check(suspend)
def a_caller_killed_in_suspend_is_followed_by_one_that_resumes(case: Case) -> None:
    def suspends(one: Case) -> None:
        one.release(ReleaseMode.SUSPEND)

    for one, where in killed_everywhere(case, _ready, suspends):
        one.release(ReleaseMode.SUSPEND)
        one.fence += 1
        sandbox = one.acquire(known=one.handle)
        must(sandbox.outcome is Acquired.RESUMED, f"{where}: {sandbox.outcome}")
        one.start("one", one.counted("one"))
        must(one.wait("one").exit.code == 0, f"{where}: it works")


@check(suspend)
def a_caller_killed_in_resume_is_followed_by_one_that_resumes(case: Case) -> None:
    def resumes(one: Case) -> None:
        one.acquire(known=one.handle)

    for one, where in killed_everywhere(case, _suspended, resumes):
        incarnation = one.handle["incarnation"]
        sandbox = one.acquire(known=one.handle)
        must(sandbox.handle["incarnation"] == incarnation, f"{where}: the same sandbox")
        must(one.inspect().state is SandboxState.READY, f"{where}: ready")
        one.start("one", one.counted("one"))
        must(one.wait("one").exit.code == 0, f"{where}: it works")
