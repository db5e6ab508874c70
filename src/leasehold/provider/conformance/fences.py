"""Checks: a stale holder changes nothing in the sandbox."""

import io
import tarfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from leasehold.errors import ConfigRejectedError, StaleFenceError, UnavailableError
from leasehold.provider.conformance.catalogue import check, files, suspend
from leasehold.provider.conformance.harness import Case, must, refused
from leasehold.provider.conformance.idempotency import at_once
from leasehold.provider.contract import (
    ExecutionState,
    ReleaseMode,
    SandboxState,
    SettledState,
    StartOutcome,
)

RACERS: Final = 40
_EMPTY_TAR: Final = bytes(10240)


def _calls(stale: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every call that brings a fence."""
    yield "acquire", stale.acquire
    yield "seize", stale.seize
    yield "renew", stale.renew
    yield "start", lambda: stale.start("late", stale.counted("late"))
    yield "start of what runs", lambda: stale.start("one", stale.counted("one"))
    yield "cancel", lambda: stale.cancel("one")
    yield "cancel of what never started", lambda: stale.cancel("late")
    yield "settle", lambda: stale.settle("late")
    yield "destroy", stale.release
    yield "keep", lambda: stale.release(ReleaseMode.KEEP)
    budget = stale.budget()
    yield (
        "forget",
        lambda: stale.provider.forget(
            stale.target, fence=stale.fence, execution_id="over", handle={}, budget=budget
        ),
    )
    if stale.info.capabilities.suspend != "none":
        yield "suspend", lambda: stale.release(ReleaseMode.SUSPEND)
        yield "resume", lambda: stale.acquire(known=stale.handle)
    if stale.info.capabilities.files:
        yield "put", lambda: _put(stale, b"late", tree=False)
        yield "put of a tree", lambda: _put(stale, _EMPTY_TAR, tree=True)


def _put(case: Case, data: bytes, *, tree: bool) -> None:
    case.provider.put(
        case.target,
        "late-file",
        io.BytesIO(data),
        fence=case.fence,
        tree=tree,
        mode=0o600,
        budget=case.budget(),
    )


class _Overtaken(io.BytesIO):
    """A stream whose reader is overtaken while it reads."""

    def __init__(self, data: bytes, overtake: Callable[[], None]) -> None:
        super().__init__(data)
        self._overtake = overtake

    def read(self, size: int | None = -1, /) -> bytes:
        self._overtake()
        return super().read(size)


@check(files)
def a_put_that_is_overtaken_half_way_changes_nothing(case: Case) -> None:
    case.acquire()
    member = tarfile.TarInfo("late-file")
    member.size = 5
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(member, io.BytesIO(b"inner"))
    for fence, (path, data, tree) in enumerate(
        (("late-file", b"late", False), (".", file.getvalue(), True)), start=7
    ):
        stale = case.again()

        def overtake(fence: int = fence) -> None:
            if case.fence < fence:
                case.seize(fence)

        with refused(StaleFenceError, f"a put that was overtaken, tree: {tree}"):
            stale.provider.put(
                stale.target,
                path,
                _Overtaken(data, overtake),
                fence=stale.fence,
                tree=tree,
                mode=0o600,
                budget=stale.budget(),
            )
        must(case.fence == fence, "its stream was read")
        with refused(ConfigRejectedError, f"what it would have written, tree: {tree}"):
            next(
                case.provider.get(case.target, "late-file", tree=False, budget=case.budget()),
                None,
            )


@check()
def a_stale_holder_is_refused_everywhere_and_changes_nothing(case: Case) -> None:
    case.acquire()
    case.start("over", case.counted("over"))
    over = case.wait("over")
    case.start("one", case.counted("one", seconds=60))
    case.running("one")
    stale = case.again()
    case.seize(7)
    for what, call in _calls(stale):
        with refused(StaleFenceError, f"{what} with an old fence"):
            call()
    must(case.inspect().state is SandboxState.READY, "the sandbox is as it was")
    must(case.look("one").state is ExecutionState.RUNNING, "the command runs on")
    must(case.ended("over") == over, "the output is as it was")
    must(case.start("late", case.counted("late")).outcome is StartOutcome.STARTED, "no trace")
    must(case.starts("one") == 1, "nothing was started twice")


@check()
def of_forty_racers_the_last_fence_rules(case: Case) -> None:
    case.acquire()
    fences = list(range(2, RACERS + 2))
    Random(1).shuffle(fences)  # noqa: S311  an order
    order = iter(fences)

    def race(mine: Case) -> tuple[int, bool]:
        fence = next(order)
        racer = _with_fence(mine, fence)
        try:
            racer.seize()
            racer.start("prize", racer.counted("prize"))
        except StaleFenceError:
            return fence, False
        return fence, True

    results = dict(at_once(case, race, RACERS))
    must(len(results) == RACERS, "each had a fence of its own")
    must(results[RACERS + 1], "the highest fence is never refused")
    case.fence = RACERS + 1
    done = case.fate("prize")
    must(case.starts("prize") == (0 if done is None else 1), "and no command is started twice")
    for fence in range(1, RACERS + 1, 7):
        with refused(StaleFenceError, f"fence {fence} after {RACERS + 1}"):
            _with_fence(case, fence).renew()


def _with_fence(case: Case, fence: int) -> Case:
    """Return the same sandbox through the same provider object, with another fence."""
    other = object.__new__(Case)
    other.__dict__.update(case.__dict__)
    other.fence = fence
    return other


@check()
def the_same_fence_may_come_again(case: Case) -> None:
    case.acquire()
    for _ in range(3):
        case.seize()
        case.renew()
    must(case.inspect().state is SandboxState.READY, "its holder repeats what it likes")


@check()
def the_fence_is_listed(case: Case) -> None:
    case.acquire()
    case.seize(41)
    must([one.fence for one in case.owned()] == [41], "list_owned tells the highest fence")


@check()
def a_tombstone_stands_for_ever(case: Case) -> None:
    case.acquire()
    for number, end in enumerate((case.cancel, case.settle)):
        name = f"never{number}"
        must(end(name).state is SettledState.NEVER_STARTED, f"{name} was never started")
        for _ in range(2):
            outcome = case.again().start(name, case.counted(name)).outcome
            must(outcome is StartOutcome.CANCELLED, f"a later start of {name}: {outcome}")
        must(case.settle(name).state is SettledState.NEVER_STARTED, "asked again")
        must(case.cancel(name).state is SettledState.NEVER_STARTED, "and again")
        must(case.starts(name) == 0, "it has not run")
        must(case.poll(name).exit is None, "and has no exit")


@check()
def what_runs_is_not_settled(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one", seconds=60))
    case.running("one")
    case.seize(5)
    with refused(UnavailableError, "settle of what runs under its supervisor"):
        case.settle("one")
    must(case.look("one").state is ExecutionState.RUNNING, "it runs on")


@check(suspend)
def a_late_suspend_does_not_touch_the_next_holder(case: Case) -> None:
    handle = case.acquire().handle
    stale = case.again()
    case.release(ReleaseMode.SUSPEND)
    case.fence += 1
    case.acquire(known=handle)
    case.start("one", case.counted("one", seconds=60))
    case.running("one")
    with refused(StaleFenceError, "a suspend that comes late"):
        stale.release(ReleaseMode.SUSPEND)
    must(case.look("one").state is ExecutionState.RUNNING, "the next holder's command runs")
