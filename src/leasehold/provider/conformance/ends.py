"""
Checks: timeouts and cancels end the whole tree, with proof.

The witness is a ticker: a process of the tree that counts in a file. After the proof of the end
the file stays as it is.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from leasehold.errors import UnavailableError
from leasehold.provider.budget import boot_time
from leasehold.provider.conformance.catalogue import check, posix, whole_tree
from leasehold.provider.conformance.harness import Case, NotCheckedError, must
from leasehold.provider.contract import (
    Command,
    ExecutionState,
    ExitCause,
    ReleaseMode,
    SettledState,
)

TICK: Final = (
    'i=0; while :; do i=$((i+1)); echo $i >"$1.new"; mv "$1.new" "$1"; sleep 0.02; done'
)
_QUIET_S: Final = 0.2
_PAUSE_S: Final = 0.01


def _ticking(case: Case, name: str) -> None:
    case.until(lambda: case.run("cat", name).exit.code == 0, f"{name} ticks")


def _quiet(case: Case, *names: str) -> None:
    """See that the tickers tick no more."""
    before = [case.run("cat", name).stdout for name in names]
    must(all(before), f"each had ticked: {before}")
    case.budget().wait(_QUIET_S)
    after = [case.run("cat", name).stdout for name in names]
    must(before == after, f"still ticking after the proof of the end: {names}")


def _within(case: Case, seconds: float, condition: Callable[[], bool]) -> bool:
    over = boot_time() + seconds
    while not condition():
        if boot_time() > over:
            return False
        case.budget().wait(_PAUSE_S)
    return True


def _tree(*, stubborn: bool = False) -> Command:
    """Return a command with a child and a grandchild that tick."""
    trap = "trap '' TERM; " if stubborn else ""
    script = (
        f'{trap}sh -c "$0" sh child & (sh -c "$0" sh grandchild & wait) & echo out; wait; wait'
    )
    return Command(argv=("sh", "-c", script, TICK))


@check(posix)
def a_timeout_ends_grandchildren_too(case: Case) -> None:
    case.acquire()
    command = _tree()
    done = case.run_command(
        Command(argv=command.argv, timeout=timedelta(seconds=0.5), grace=timedelta(seconds=0.2))
    )
    must(done.exit.cause is ExitCause.TIMEOUT, f"told as a timeout: {done.exit}")
    must(done.exit.code is None, f"a timeout has no exit code: {done.exit}")
    must(done.stdout == b"out\n", "the output is kept")
    _quiet(case, "child", "grandchild")


@check(posix)
def a_tree_that_ignores_term_is_killed_after_its_grace(case: Case) -> None:
    case.acquire()
    command = _tree(stubborn=True)
    case.start("one", command)
    case.running("one")
    _ticking(case, "grandchild")
    settled = case.cancel("one", grace_s=0.2)
    must(settled.exit and settled.exit.cause is ExitCause.CANCELLED, f"{settled}")
    _quiet(case, "child", "grandchild")
    case.start("two", command)
    case.running("two")
    done = case.run_command(
        Command(argv=command.argv, timeout=timedelta(seconds=0.4), grace=timedelta(seconds=0.1))
    )
    must(done.exit.cause is ExitCause.TIMEOUT, f"{done.exit}")
    case.cancel("two", grace_s=0)
    _quiet(case, "child", "grandchild")


@check(posix)
def who_heeds_term_has_its_grace(case: Case) -> None:
    case.acquire()
    script = 'trap "echo bye; exit 7" TERM; echo out; while :; do sleep 0.02; done'
    case.start("one", case.shell(script))
    case.running("one")
    began = boot_time()
    settled = case.cancel("one", grace_s=20)
    must(boot_time() - began < 10, "a cancel does not wait for a grace that nobody needs")  # noqa: PLR2004  half of it
    must(settled.exit and settled.exit.cause is ExitCause.CANCELLED, f"{settled}")
    must(case.ended("one").stdout == b"out\nbye\n", "last words are kept")


@check(posix)
def an_end_of_its_own_is_not_changed_by_a_cancel(case: Case) -> None:
    case.acquire()
    done = case.run_command(case.shell("echo out; exit 3"))
    must(done.exit.code == 3, f"{done.exit}")  # noqa: PLR2004  as in the script
    case.start("one", case.shell("exit 4"))
    own = case.wait("one").exit
    must(case.cancel("one").exit == own, "its own end came first")


@check(posix)
def a_background_process_does_not_hold_up_the_end(case: Case) -> None:
    case.acquire()
    began = boot_time()
    done = case.run_command(case.shell("sleep 25 & echo out; exit 5"))
    must((done.exit.code, done.stdout) == (5, b"out\n"), f"{done}")
    must(boot_time() - began < 20, "a kept pipe delays the end by a bounded time only")  # noqa: PLR2004  less than the sleep


@check(posix)
def what_ended_has_left_nothing_running(case: Case) -> None:
    case.acquire()
    command = Command(argv=("sh", "-c", '(sh -c "$0" sh left) >/dev/null 2>&1 & exit 0', TICK))
    case.start("one", command)
    done = case.wait("one")
    must(done.exit.code == 0, f"{done}")
    case.cancel("one", grace_s=0)
    if case.run("cat", "left").exit.code == 0:
        _quiet(case, "left")


def _escape(case: Case) -> Command:
    if case.run_command(case.shell("command -v setsid")).exit.code != 0:
        raise NotCheckedError("there is no setsid in the sandbox")
    script = 'setsid sh -c "$0" sh escapee & echo out; wait; sleep 60'
    return Command(argv=("sh", "-c", script, TICK))


@check(posix, whole_tree)
def one_that_left_its_session_is_ended_too(case: Case) -> None:
    case.acquire()
    command = _escape(case)
    case.start("one", command)
    case.running("one")
    _ticking(case, "escapee")
    case.cancel("one", grace_s=0.1)
    _quiet(case, "escapee")
    done = case.run_command(
        Command(argv=command.argv, timeout=timedelta(seconds=0.5), grace=timedelta(seconds=0.1))
    )
    must(done.exit.cause is ExitCause.TIMEOUT, f"{done.exit}")
    _quiet(case, "escapee")


@check(posix)
def a_destroy_ends_what_runs(case: Case) -> None:
    # The harness's own look at the host tells, after the destroy, whether anything is left.
    case.acquire()
    case.start("one", _tree(stubborn=True))
    case.running("one")
    _ticking(case, "grandchild")
    case.release(ReleaseMode.DESTROY)
    leaks = case.harness.leaks
    case.until(lambda: not leaks(), "nothing of the destroyed sandbox runs")


@check(posix)
def a_command_that_kills_its_supervisor_is_settled_with_proof(case: Case) -> None:
    case.acquire()
    # A zombie is dead; nobody may be there to reap it.
    script = (
        'sh -c "$0" sh orphan & until [ -e orphan ]; do sleep 0.01; done; kill -9 $PPID; '
        'while :; do case $(cat /proc/$PPID/stat 2>/dev/null) in "" | *") Z "*) break ;; esac; '
        "sleep 0.01; done; echo it is >dead; sleep 60"
    )
    case.start("one", Command(argv=("sh", "-c", script, TICK)))

    def accounted() -> bool:
        return case.look("one").state not in {ExecutionState.STARTING, ExecutionState.RUNNING}

    def dead() -> bool:
        return case.run("cat", "dead").exit.code == 0

    _ticking(case, "orphan")
    if not _within(case, 2, lambda: accounted() or dead()):
        # Its supervisor is out of its reach.
        must(case.cancel("one", grace_s=0).exit, "it can still be ended")
        return
    must(_within(case, _QUIET_S, accounted), "its supervisor is dead, and it is said to run")
    case.seize(5)
    try:
        settled = case.settle("one")
    except UnavailableError as error:
        raise NotCheckedError(str(error)) from error
    must(settled.state in {SettledState.LOST, SettledState.EXITED}, f"{settled}")
    _quiet(case, "orphan")
    must(case.settle("one") == settled, "the proof stands")
