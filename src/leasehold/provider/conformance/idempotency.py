"""Checks: the same call by many at once, or once more, has the effect of one."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Final, TypeVar

from leasehold.errors import UnavailableError
from leasehold.provider.conformance.catalogue import check, suspend
from leasehold.provider.conformance.harness import Case, must
from leasehold.provider.contract import (
    Acquired,
    ReleaseMode,
    SandboxState,
    SettledState,
    StartOutcome,
)

T = TypeVar("T")
THREADS: Final = 8


def at_once(case: Case, act: Callable[[Case], T], number: int = THREADS) -> list[T]:
    """Let threads act at the same moment: half on one provider object, half on others."""
    cases = [case if index % 2 else case.again() for index in range(number)]
    barrier = Barrier(number)

    def one(mine: Case) -> T:
        barrier.wait(case.harness.limit_s)
        return act(mine)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, cases))


@check()
def eight_that_acquire_one_lease_get_one_sandbox(case: Case) -> None:
    got = at_once(case, lambda mine: mine.acquire())
    outcomes = Counter(one.outcome for one in got)
    must(outcomes[Acquired.CREATED] == 1, f"one created it: {dict(outcomes)}")
    must(len({one.handle["incarnation"] for one in got}) == 1, "all got the same")
    must(len({one.sandbox_id for one in got}) == 1, "under the same name")
    must(len(case.owned()) == 1, "one sandbox is listed")


@check()
def eight_that_start_one_execution_start_it_once(case: Case) -> None:
    case.acquire()
    got = at_once(case, lambda mine: mine.start("one", mine.counted("one")).outcome)
    must(got.count(StartOutcome.STARTED) <= 1, f"at most one started it: {got}")
    must(StartOutcome.CANCELLED not in got, f"nobody was refused: {got}")
    done = case.wait("one")
    must((done.exit.code, done.stdout) == (0, b"out"), f"it ran: {done}")
    must(case.starts("one") == 1, "and it ran once")
    again = case.start("one", case.counted("one")).outcome
    must(again is StartOutcome.ADOPTED, "a late call adopts what is over")
    must(case.starts("one") == 1, "and starts nothing")


@check()
def starts_and_cancels_of_one_execution_agree(case: Case) -> None:
    case.acquire()
    for round_ in range(3):
        name = f"r{round_}"

        def act(mine: Case, name: str = name) -> tuple[str, object]:
            if mine is case:
                try:
                    return "start", mine.start(name, mine.counted(name)).outcome
                except UnavailableError:
                    # What it was to start was taken away under its hands; that is an answer.
                    return "start", None
            return "cancel", mine.cancel(name)

        got = at_once(case, act, 4)
        final = case.settle(name)
        if final.state is SettledState.NEVER_STARTED:
            must(case.starts(name) == 0, f"what never started has not run: {got}, {final}")
            outcome = case.start(name, case.counted(name)).outcome
            must(outcome is StartOutcome.CANCELLED, "and never will")
        must(case.starts(name) <= 1, "never twice")


@check()
def eight_that_destroy_a_sandbox_all_succeed(case: Case) -> None:
    case.acquire()
    case.start("long", case.counted("long", seconds=60))
    case.running("long")
    at_once(case, lambda mine: mine.release())
    must(case.inspect().state is SandboxState.GONE, "it is gone")
    must(not case.owned(), "and not listed")


@check()
def a_repeated_end_says_the_same(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one"))
    done = case.wait("one")
    for _ in range(2):
        must(case.cancel("one").exit == done.exit, "a late cancel changes nothing")
        must(case.settle("one").exit == done.exit, "settle tells the recorded end")
    case.start("long", case.counted("long", seconds=60))
    case.running("long")
    first = case.cancel("long")
    must(first.exit is not None and first.exit.cause == "cancelled", f"cancelled: {first}")
    must(case.cancel("long") == first == case.settle("long"), "the record stands")


@check(suspend)
def eight_that_resume_a_sandbox_get_it_ready(case: Case) -> None:
    handle = case.acquire().handle
    case.release(ReleaseMode.SUSPEND)
    case.fence += 1
    got = at_once(case, lambda mine: mine.acquire(known=handle))
    must({one.handle["incarnation"] for one in got} == {handle["incarnation"]}, "the same one")
    must(case.inspect().state is SandboxState.READY, "ready again")
    case.start("after", case.counted("after"))
    must(case.wait("after").exit.code == 0, "and it works")
