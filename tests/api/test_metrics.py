"""What `/metrics` tells is true, moves, and is what dashboards, alerts and the page name."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.served import client_of, make_key
from api.streaming import streaming
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.store import gauges, moves, restored
from leasehold.store.database import Database, Tx
from store.rows import insert_delivery, insert_lease, insert_run, insert_worker

ROOT: Final = Path(__file__).parents[2]
NAME: Final = re.compile(r"\bleasehold_[a-z0-9_]+\b")
SECOND: Final = 1_000_000

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def platform(service: Service, database: Database) -> Iterator[httpx.Client]:
    with client_of(service, make_key(database, Role.ROOT, tenant=PLATFORM)) as client:
        yield client


def scraped(client: httpx.Client, service: Service) -> dict[Sample, float]:
    """Return what is told now: by name and labels."""
    service.application.state.scrapes._found = None  # the last look is no second old
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def named(samples: dict[Sample, float]) -> set[str]:
    return {name for name, _ in samples}


def queued(tx: Tx) -> None:
    insert_run(tx, status="queued", created_at=tx.now() - 90 * SECOND)


def waiting(tx: Tx) -> None:
    insert_run(tx, status="queued", waits=1)


def parked(tx: Tx) -> None:
    insert_run(tx, status="parked", code="infra_exhausted")


def late(tx: Tx) -> None:
    insert_run(tx, due_at=tx.now() - 45 * SECOND)


def unanswered(tx: Tx) -> None:
    insert_run(tx, publishes=gauges.UNANSWERED)


def ended(tx: Tx) -> None:
    insert_run(tx, status="failed", code="command_failed", exit_code=3)


def started(tx: Tx) -> None:
    now = tx.now()
    insert_run(tx, created_at=now - 8 * SECOND, started_at=now - 5 * SECOND)


def stepped(tx: Tx) -> None:
    row = insert_run(tx)
    for name in ("step.acquire.started", "step.acquire.finished"):
        moves.record(tx, name, tenant_id="default", run_id=row["id"])
        moves.flush(tx)
    # Longer than what is looked at: only its end has to be lately.
    tx.run(f"UPDATE events SET at = at - {400 * SECOND} WHERE name = 'step.acquire.started'")


def leased(tx: Tx) -> None:
    insert_lease(tx, status="releasing", last_error="the engine does not answer")


def lost(tx: Tx) -> None:
    row = insert_worker(tx, "worker-lost")
    tx.run(
        "UPDATE sessions SET status = 'expired', ended_at = {now} WHERE id = :id",
        id=row["session_id"],
    )


def owed(tx: Tx) -> None:
    insert_delivery(tx)


def distrusted(tx: Tx) -> None:
    restored.raise_alarm(tx, "a test", epoch=restored.epoch(tx))


MOVES: Final[list[tuple[Callable[[Tx], Any], dict[Sample, float]]]] = [
    (queued, {("leasehold_runs", (("status", "queued"),)): 1}),
    (waiting, {("leasehold_runs", (("status", "waiting"),)): 1}),
    (parked, {("leasehold_runs", (("status", "parked"),)): 1}),
    (late, {
        ("leasehold_runs", (("status", "running"),)): 1,
        ("leasehold_runs_running", (("step", "validate"),)): 1,
    }),
    (unanswered, {("leasehold_runs_unanswered", ()): 1}),
    (ended, {
        ("leasehold_runs_ended_5m", (("code", "command_failed"), ("status", "failed"))): 1
    }),
    (started, {("leasehold_run_wait_seconds", (("quantile", "0.95"),)): 3.0}),
    (stepped, {
        ("leasehold_step_seconds", (("quantile", "0.5"), ("step", "acquire"))): 400.0
    }),
    (leased, {
        ("leasehold_leases", (("status", "releasing"),)): 1,
        ("leasehold_leases_cleanup_failing", ()): 1,
    }),
    (lost, {("leasehold_sessions_lost_1h", ()): 1}),
    (owed, {("leasehold_webhook_deliveries_owed", ()): 1}),
    (distrusted, {("leasehold_alarm", ()): 1}),
]  # fmt: skip


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    ("happen", "wanted"), MOVES, ids=lambda one: getattr(one, "__name__", "")
)
def test_each_number_moves_when_it_happens(
    service: Service,
    platform: httpx.Client,
    database: Database,
    happen: Callable[[Tx], Any],
    wanted: dict[Sample, float],
) -> None:
    before = scraped(platform, service)
    with database.write("test") as tx:
        happen(tx)
    after = scraped(platform, service)
    for sample, value in wanted.items():
        assert after[sample] - before.get(sample, 0.0) == pytest.approx(value, abs=0.01), sample


@pytest.mark.breaks_invariants
def test_ages_are_seconds(service: Service, platform: httpx.Client, database: Database) -> None:
    with database.write("test") as tx:
        queued(tx)
        late(tx)
    found = scraped(platform, service)
    assert 90 <= found["leasehold_queue_oldest_seconds", ()] < 120
    assert 45 <= found["leasehold_due_late_seconds", ()] < 75


def test_what_is_long_over_is_not_lately(
    service: Service, platform: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        at = tx.now() - gauges.WINDOW_US - SECOND
        insert_run(tx, status="succeeded", created_at=at, started_at=at, finished_at=at)
    found = scraped(platform, service)
    assert not named(found) & {"leasehold_runs_ended_5m", "leasehold_run_wait_seconds"}


def test_streams_are_those_of_this_process(
    quick: Service, database: Database, run: str
) -> None:
    with (
        client_of(quick, make_key(database, Role.ROOT, tenant=PLATFORM)) as platform,
        client_of(quick, make_key(database)) as client,
    ):
        assert scraped(platform, quick)["leasehold_streams", ()] == 0
        with streaming(client, f"{run}/events/stream") as coming:
            next(coming)
            assert scraped(platform, quick)["leasehold_streams", ()] == 1


def test_who_asks_again_at_once_is_told_the_same(
    service: Service, platform: httpx.Client, database: Database
) -> None:
    first = scraped(platform, service)
    service.application.state.scrapes._at += 3600  # a second that lasts
    with database.write("test") as tx:
        insert_run(tx, status="queued")
    assert platform.get("/metrics").text.count("\n") == platform.get("/metrics").text.count(
        "\n"
    )
    again = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(platform.get("/metrics").text)
        for one in family.samples
    }
    assert again == first
    assert scraped(platform, service) != first


@pytest.mark.breaks_invariants
def test_dashboards_alerts_and_the_page_name_what_there_is(
    service: Service, platform: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        for happen, _ in MOVES:
            happen(tx)
    there = named(scraped(platform, service))
    page = set(NAME.findall((ROOT / "docs/metrics.md").read_text()))
    assert page == there
    board = json.loads((ROOT / "deploy/grafana/leasehold.json").read_text())
    shown = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in NAME.findall(target["expr"])
    }
    assert shown == there
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(NAME.findall(rule["expr"])) <= there, rule["alert"]
            assert rule["annotations"]["summary"].endswith(".")
