"""Places: labels of hosts, and what environments and runs require of them."""

from typing import Any

import pytest

from leasehold.errors import BadInputError, ConflictError
from leasehold.orchestrator import explaining, submit
from leasehold.store import hosts

from .conftest import House
from .test_3_leases import hold


@pytest.fixture
def town(house: House) -> House:
    """Two hosts that serve a provider which is bound to them; only `big` has a label."""
    house.hire("host-1", host_bound=True)
    house.hire("big", labels={"gpu": "1", "zone": "a"}, host_bound=True)
    return house


def why(town: House, run_id: str) -> explaining.Explanation:
    with town.database.read() as tx:
        return explaining.run(tx, town.worker, run_id)


def relabel(town: House, host: str, **labels: str) -> None:
    """Start the host's agent anew with other labels."""
    with town.database.write("test") as tx:
        hosts.upsert_host(tx, host, name=host, capacity=1000, labels=labels)


def test_what_an_environment_requires_decides_the_host(town: House) -> None:
    town.environment(requires={"gpu": "1"})
    ids = [town.submit("true") for _ in range(4)]
    town.over(*ids)
    assert {town.run(i)["host_id"] for i in ids} == {"big"}
    assert {row["host_id"] for row in town.leases()} == {"big"}
    assert {row["queue"] for row in town.leases()} == {"leasehold.host.big"}


def test_what_a_run_requires_is_added_to_its_environment(town: House) -> None:
    town.environment(requires={"gpu": "1"})
    run = town.over(town.submit("true", requires={"zone": "a"}))
    assert (run["status"], run["host_id"]) == ("succeeded", "big")
    waits = town.submit("true", requires={"zone": "b"})
    assert why(town, waits).reason == (
        "no live host that serves fake has gpu=1 zone=b;"
        " hosts have: big: gpu=1 zone=a; host-1: no labels"
    )
    assert "leasehold worker --label" in why(town, waits).changes
    town.cancel(waits)


def test_a_conflict_of_run_and_environment_is_refused_with_both_values(town: House) -> None:
    town.environment(requires={"gpu": "1"})
    with pytest.raises(BadInputError) as caught:
        town.submit("true", requires={"gpu": "2"})
    assert str(caught.value) == (
        "requires.gpu: the run requires gpu=2, environment lab requires gpu=1"
    )
    assert caught.value.field == "requires.gpu"


def test_an_unmet_requirement_blocks_neither_its_environment_nor_others(town: House) -> None:
    town.environment()
    waits = [town.submit("true", requires={"gpu": "7"}, priority=9) for _ in range(3)]
    free = town.over(town.submit("true"))
    other = town.over(town.submit("true", requires={"gpu": "1"}))
    assert (free["status"], other["host_id"]) == ("succeeded", "big")
    assert {town.run(i)["status"] for i in waits} == {"queued"}
    for run_id in waits:
        town.cancel(run_id)


def test_a_label_that_comes_while_a_run_waits_lets_it_in(town: House) -> None:
    town.environment()
    waits = town.submit("true", requires={"gpu": "2"})
    town.turn()
    assert town.run(waits)["status"] == "queued"
    relabel(town, "host-1", gpu="2")
    assert town.over(waits)["host_id"] == "host-1"


def test_a_sandbox_is_not_reused_for_a_run_whose_host_it_is_not_on(town: House) -> None:
    town.environment(policy="reuse_by_environment")
    relabel(town, "host-1", gpu="1")
    first = town.over(town.submit("true", requires={"gpu": "1"}))
    town.quiet()
    other = "big" if first["host_id"] == "host-1" else "host-1"
    relabel(town, first["host_id"], gpu="0")
    second = town.over(town.submit("true", requires={"gpu": "1"}))
    town.quiet()
    assert second["host_id"] == other
    assert second["lease_id"] != first["lease_id"]
    third = town.over(town.submit("true", requires={"gpu": "1"}))
    assert third["lease_id"] == second["lease_id"]
    town.quiet()
    assert sorted(row["status"] for row in town.leases()) == ["idle", "idle"]


def test_a_full_environment_gives_up_the_sandbox_that_a_run_cannot_use(town: House) -> None:
    town.environment(policy="reuse_by_environment", limits={"max_concurrent": 1})
    relabel(town, "host-1", disk="fast")
    first = town.over(town.submit("true", requires={"disk": "fast"}))
    town.quiet()
    second = town.over(town.submit("true", requires={"gpu": "1"}))
    town.quiet()
    assert (first["host_id"], second["host_id"]) == ("host-1", "big")
    by_id = {row["id"]: row for row in town.leases()}
    assert by_id[first["lease_id"]]["reason"] == "evicted"
    assert by_id[second["lease_id"]]["status"] == "idle"


def test_full_hosts_give_up_an_idle_sandbox_of_theirs_and_of_no_other(town: House) -> None:
    town.environment("one", policy="reuse_by_environment")
    town.environment("two", policy="reuse_by_environment")
    small: dict[str, Any] = {"host_bound": True, "capacity": 1}
    town.hire("host-1", labels={"disk": "fast"}, **small)
    town.hire("big", labels={"gpu": "1"}, **small)
    kept = town.over(town.submit("true", environment="one", requires={"disk": "fast"}))
    gone = town.over(town.submit("true", environment="one", requires={"gpu": "1"}))
    town.quiet()
    run = town.over(town.submit("true", environment="two", requires={"gpu": "1"}))
    town.quiet()
    assert (run["status"], run["host_id"]) == ("succeeded", "big")
    by_id = {row["id"]: row for row in town.leases()}
    assert by_id[kept["lease_id"]]["status"] == "idle"
    assert by_id[gone["lease_id"]]["reason"] == "evicted"


def test_a_lease_of_ones_own_is_made_where_its_environment_may_be(town: House) -> None:
    town.environment(requires={"gpu": "1"})
    town.environment("nowhere", requires={"gpu": "9"})
    hold(town)
    assert town.leases()[0]["host_id"] == "big"
    with pytest.raises(ConflictError, match="no live host that serves fake has gpu=9"):
        hold(town, "nowhere")


def test_a_run_that_names_a_lease_goes_where_that_is(town: House) -> None:
    town.environment()
    lease_id = hold(town)
    with pytest.raises(BadInputError, match="goes where its sandbox is"):
        town.submit("true", lease_id=lease_id, requires={"gpu": "1"})


def test_a_provider_without_hosts_has_no_place_to_choose(house: House) -> None:
    house.environment()
    words = "provider fake is not bound to hosts, so a host with gpu=1 cannot be chosen"
    with pytest.raises(BadInputError, match=words):
        house.submit("true", requires={"gpu": "1"})
    with pytest.raises(BadInputError, match=words):
        house.environment("other", requires={"gpu": "1"})


def test_a_provider_that_is_not_bound_any_more_lets_its_runs_wait(town: House) -> None:
    town.environment()
    waits = town.submit("true", requires={"gpu": "5"})
    for host in ("host-1", "big"):
        town.hire(host, labels={"gpu": "5"}, host_bound=False)
    town.turn()
    assert "is not bound to hosts" in why(town, waits).reason
    town.cancel(waits)


def test_a_run_whose_host_is_lost_waits_for_another_that_will_do(town: House) -> None:
    town.environment()
    run_id = town.submit("true", requires={"gpu": "1"})
    assert town.run(run_id)["host_id"] == "big"
    with town.database.write("test") as tx:
        tx.run("UPDATE sessions SET status = 'expired', ended_at = 1 WHERE host_id = 'big'")
        tx.run("UPDATE workers SET status = 'gone', gone_at = 1 WHERE host_id = 'big'")
        tx.run("UPDATE hosts SET alive_at = 1 WHERE id = 'big'")
    town.messages.clear()  # they lie in a queue that nobody reads any more
    town.until(lambda: town.run(run_id)["status"] == "queued")
    town.turn()
    assert town.run(run_id)["status"] == "queued", "host-1 will not do"
    town.hire("bigger", labels={"gpu": "1"}, host_bound=True)
    assert town.over(run_id)["host_id"] == "bigger"


def test_the_same_request_under_another_requirement_is_another_request(town: House) -> None:
    one = submit.Request(spec=spec(requires={"gpu": "1"}), environment="lab")
    two = submit.Request(spec=spec(requires={"gpu": "2"}), environment="lab")
    assert one.body_hash() != two.body_hash()


def spec(**fields: Any) -> Any:
    from leasehold.domain.specs import RunSpec, parse

    return parse(RunSpec, {"commands": [{"argv": ["true"]}], **fields})
