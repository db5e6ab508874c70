"""A key with which somebody asks for a lease of their own: one lease, however often asked."""

import threading
from datetime import timedelta

import pytest

from leasehold.domain.retention import Retention
from leasehold.errors import IdempotencyConflictError
from leasehold.maintenance import pruner
from leasehold.orchestrator import holding
from leasehold.store import retention
from leasehold.store.database import Row

from .conftest import House


def asked(house: House, key: str | None = "k", *, minutes: int = 10) -> tuple[Row, bool]:
    request = holding.Request(
        environment="lab",
        hold_for=timedelta(minutes=minutes),
        tenant_id="default",
        key=key,
    )
    with house.database.write("test") as tx:
        return holding.ask(tx, house.worker, request)


def test_a_key_makes_one_lease_whatever_becomes_of_it(house: House) -> None:
    house.environment()
    lease, new = asked(house)
    assert new
    assert asked(house)[0]["id"] == lease["id"]
    house.until(lambda: house.leases()[0]["status"] == "idle")
    assert asked(house) == (house.leases()[0], False)
    with house.database.write("test") as tx:
        holding.give_back(tx, house.worker, lease["id"], actor="test")
    house.until(lambda: house.leases()[0]["status"] == "released")
    again, new = asked(house)
    assert (again["id"], again["status"], new) == (lease["id"], "released", False)
    other, new = asked(house, "other")
    assert new
    assert other["id"] != lease["id"]
    without = [asked(house, None)[0]["id"] for _ in range(2)]
    assert len({lease["id"], other["id"], *without}) == 4


def test_another_request_with_the_key_is_a_conflict(house: House) -> None:
    house.environment()
    lease, _ = asked(house)
    with pytest.raises(IdempotencyConflictError, match=f"used for lease {lease['id']}"):
        asked(house, minutes=20)
    assert len(house.leases()) == 1


def test_many_at_once_make_one(house: House) -> None:
    house.environment()
    found: list[tuple[str, bool]] = []

    def ask() -> None:
        row, new = asked(house)
        found.append((row["id"], new))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({lease_id for lease_id, _ in found}) == 1
    assert [new for _, new in found].count(True) == 1


def test_a_key_finds_its_lease_for_as_long_as_keys_are_kept(house: House) -> None:
    house.environment()
    lease, _ = asked(house)
    asked(house, None)
    house.until(lambda: all(row["status"] == "idle" for row in house.leases()))
    with house.database.write("test") as tx:
        for row in house.leases():
            holding.give_back(tx, house.worker, row["id"], actor="test")
        retention.put(tx, "default", Retention.model_construct(runs_s=0, output_s=0))
    house.until(lambda: all(row["status"] == "released" for row in house.leases()))
    pruner.may(house.worker)
    pruner.run_once(house.worker, limits=pruner.Limits(key_kept_s=3600, spared=0))
    assert [row["id"] for row in house.leases()] == [lease["id"]]
    pruner.run_once(house.worker, limits=pruner.Limits(key_kept_s=0, spared=0))
    assert house.leases() == []
