"""Checks: a sandbox ends by itself, lives on when renewed, keeps its files in suspension."""

from datetime import timedelta

from leasehold.errors import SandboxGoneError
from leasehold.provider.budget import boot_time
from leasehold.provider.conformance.catalogue import check, native_ttl, posix, suspend
from leasehold.provider.conformance.ends import TICK, _quiet
from leasehold.provider.conformance.harness import Case, NotCheckedError, must, refused
from leasehold.provider.contract import (
    Acquired,
    Command,
    ExecutionState,
    ReleaseMode,
    SandboxState,
    SettledState,
    Suspend,
)

_OVER = frozenset({SandboxState.GONE, SandboxState.STOPPED})


def _short(case: Case) -> timedelta:
    return timedelta(seconds=case.harness.short_ttl_s)


@check(native_ttl)
def a_sandbox_that_nobody_renews_ends_by_itself(case: Case) -> None:
    case.acquire(ttl=_short(case))
    case.start("one", case.counted("one", seconds=300))
    case.running("one")
    case.until(lambda: case.inspect().state in _OVER, "the sandbox has ended by itself")

    def ended() -> bool:
        polled = case.poll("one")
        return polled.error is not None or polled.state is ExecutionState.EXITED

    case.until(ended, "its command has ended with it")
    polled = case.poll("one")
    if polled.error is not None:
        must(isinstance(polled.error, SandboxGoneError), f"{polled.error!r}")
    elif polled.exit is not None:
        must(polled.exit.cause == "expired", f"told as expired: {polled.exit}")


@check(native_ttl)
def what_ended_by_itself_is_not_renewed(case: Case) -> None:
    case.acquire(ttl=_short(case))
    case.until(lambda: case.inspect().state in _OVER, "the sandbox has ended by itself")
    with refused(SandboxGoneError, "renew of a sandbox that has ended"):
        case.renew()
    must(case.inspect().state in _OVER, "renew resurrects nothing")
    case.release()
    must(case.inspect().state is SandboxState.GONE, "it can still be destroyed")


@check(native_ttl)
def a_renewed_sandbox_lives_on(case: Case) -> None:
    case.acquire(ttl=_short(case))
    began = boot_time()
    case.start("one", case.counted("one", seconds=300))
    renewal = case.renew()
    must(renewal.expires_in_s is not None and renewal.expires_in_s > 60, f"{renewal}")  # noqa: PLR2004  of ten minutes
    left = case.inspect().expires_in_s
    must(left is not None and left > 60, f"inspect tells {left}")  # noqa: PLR2004  as above
    over = began + 1.5 * case.harness.short_ttl_s
    case.until(lambda: boot_time() > over, "its first time is over")
    must(case.inspect().state is SandboxState.READY, "ready")
    must(case.look("one").state is ExecutionState.RUNNING, "and its command runs")


@check(native_ttl)
def acquire_renews_as_well(case: Case) -> None:
    case.acquire(ttl=_short(case))
    case.acquire()
    left = case.inspect().expires_in_s
    must(left is not None and left > 60, f"inspect tells {left}")  # noqa: PLR2004  of ten minutes


@check(suspend)
def a_suspended_sandbox_comes_back(case: Case) -> None:
    handle = case.acquire().handle
    case.start("one", case.counted("one"))
    case.wait("one")
    case.release(ReleaseMode.SUSPEND)
    must(case.inspect().state is not SandboxState.GONE, "suspended is not gone")
    must(len(case.owned()) == 1, "and it is still listed")
    case.fence += 1
    after = case.again()
    sandbox = after.acquire(known=handle)
    must(sandbox.outcome is Acquired.RESUMED, f"{sandbox.outcome}")
    must(sandbox.handle["incarnation"] == handle["incarnation"], "it is the same one")
    must(after.ended("one").stdout == b"out", "what ran before can be read")
    after.start("two", after.counted("two"))
    must(after.wait("two").exit.code == 0, "and it works")
    must(after.starts("one") == 1, "its files are there")


@check(suspend, posix)
def nothing_runs_in_a_suspended_sandbox(case: Case) -> None:
    handle = case.acquire().handle
    case.start("one", Command(argv=("sh", "-c", 'echo out; sh -c "$0" sh tick', TICK)))
    case.running("one")
    case.until(lambda: case.run("cat", "tick").exit.code == 0, "it ticks")
    case.release(ReleaseMode.SUSPEND)
    case.fence += 1
    case.acquire(known=handle)
    if case.info.capabilities.suspend != "memory":
        _quiet(case, "tick")


@check(suspend)
def what_ran_has_ended_when_only_the_disk_is_kept(case: Case) -> None:
    if case.info.capabilities.suspend is not Suspend.DISK:
        raise NotCheckedError("its memory is kept as well")
    handle = case.acquire().handle
    case.start("one", case.counted("one", seconds=300))
    case.running("one")
    case.release(ReleaseMode.SUSPEND)
    case.fence += 1
    case.acquire(known=handle)
    settled = case.settle("one")
    must(settled.state is not SettledState.NEVER_STARTED, f"it had run: {settled}")
    if settled.exit is not None:
        must(settled.exit.code is None, f"it did not end by itself: {settled}")
        must(case.ended("one").stdout == b"out", "what it said is kept")


@check()
def a_kept_sandbox_is_as_it_was(case: Case) -> None:
    case.acquire()
    case.start("one", case.counted("one"))
    done = case.wait("one")
    case.release(ReleaseMode.KEEP)
    must(case.inspect().state is SandboxState.READY, "it is there")
    must(case.ended("one") == done, "with what ran in it")
    must(len(case.owned()) == 1, "and listed")
