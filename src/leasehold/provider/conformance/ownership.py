"""Checks: the sweep works from labels alone, and never touches what is not ours."""

import os

from leasehold.errors import ProviderError
from leasehold.provider.conformance.catalogue import check
from leasehold.provider.conformance.harness import LAST_FENCE, Case, must
from leasehold.provider.contract import LeaseRef, ReleaseMode, SandboxState, Target


@check()
def what_is_listed_is_enough_to_destroy_it(case: Case) -> None:
    made = [case.another() for _ in range(3)]
    for fence, one in enumerate(made, start=3):
        one.fence = fence
        one.acquire()
    made[0].start("one", made[0].counted("one", seconds=60))
    # The database is gone: nothing is known but the deployment.
    sweeper = case.again()
    listed = {one.lease_id: one for one in sweeper.owned_by(case.harness.deployment)}
    must(set(listed) == {one.lease.id for one in made}, f"listed: {sorted(listed)}")
    for one in made:
        owned = listed[one.lease.id]
        must(owned.lease_number == one.lease.number, "the label holds the lease's number")
        must(owned.fence == one.fence, "the fence can be read")
        must(0 <= owned.age_s < 300, f"its age: {owned.age_s}")  # noqa: PLR2004  just made
        must(owned.handle["incarnation"] == one.handle["incarnation"], "and its incarnation")
        sweeper.provider.release(
            Target(
                lease=LeaseRef(
                    id=owned.lease_id,
                    number=owned.lease_number,
                    deployment=case.harness.deployment,
                ),
                handle=owned.handle,
                config=case.harness.config,
            ),
            fence=LAST_FENCE,
            mode=ReleaseMode.DESTROY,
            budget=case.budget(),
        )
        must(one.inspect().state is SandboxState.GONE, "gone")
    must(not sweeper.owned_by(case.harness.deployment), "nothing is left to list")


@check()
def a_destroy_with_a_lost_handle_finds_it_by_the_lease(case: Case) -> None:
    case.acquire()
    after = case.again()
    after.handle = {}
    after.fence += 1
    after.release()
    must(case.inspect().state is SandboxState.GONE, "found by its lease id, and gone")
    after.release()


@check()
def another_deployments_sandbox_is_neither_listed_nor_touched(case: Case) -> None:
    foreign = f"{case.harness.deployment}-foreign"
    theirs = case.another()
    theirs.provider.close()
    theirs.provider = case.harness.provider(foreign)
    theirs.lease = LeaseRef(id=f"conf-{os.urandom(8).hex()}", number=1, deployment=foreign)
    theirs.acquire()
    case.acquire()
    ours = [one.lease_id for one in case.owned_by(case.harness.deployment)]
    must(ours == [case.lease.id], f"only ours is listed: {ours}")
    must(
        [one.lease_id for one in theirs.owned_by(foreign)] == [theirs.lease.id],
        "theirs is listed for them",
    )
    # A database that was copied: the same lease id, another deployment.
    same_name = case.another()
    same_name.lease = LeaseRef(id=theirs.lease.id, number=1, deployment=case.harness.deployment)
    for call in (same_name.acquire, same_name.release):
        try:
            call()
        except ProviderError:
            continue
    must(theirs.inspect().state is SandboxState.READY, "theirs is as it was")
    theirs.start("one", theirs.counted("one"))
    must(theirs.wait("one").exit.code == 0, "and it works")
