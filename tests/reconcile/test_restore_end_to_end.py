"""A home whose database file is put back to yesterday's kills no sandbox of today."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Live, until
from services import copy_sqlite


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(
        tmp_path / "home",
        LEASEHOLD_TIMERS='{"beat_every": 0.5, "sweep_every": 60, "sweep_grace": 0.1}',
        LEASEHOLD_WORKER_THREADS="2",
    )
    yield live
    live.down()


def leases(live: Live, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.call("leases", "list", "--json", *arguments).json()
    return found


def sandboxes(live: Live) -> set[str]:
    root = live.home / "host" / "sandboxes" / "local"
    return {path.parent.name.removeprefix("lease-") for path in root.glob("*/label.json")}


def put_back(live: Live, backup: Path) -> None:
    for path in live.home.glob("leasehold.db*"):
        path.unlink()
    shutil.copyfile(backup, live.home / "leasehold.db")


@pytest.mark.proof
def test_a_restored_database_of_yesterday_kills_no_sandbox_of_today(
    live: Live, tmp_path: Path
) -> None:
    database = live.home / "leasehold.db"
    mark = tmp_path / "mark"
    with live:
        assert live.call("env", "create", "lab", "--provider", "local").code == 0
        pool = ("--provider", "local", "--policy", "reuse_by_environment")
        assert live.call("env", "create", "pool", *pool).code == 0
        assert live.call("run", "--env", "pool", "--", "true").code == 0
        (idle,) = leases(live, "--status", "idle")
    backup = copy_sqlite(database, tmp_path / "yesterday.db")
    with live:
        created = live.call("leases", "create", "--env", "lab", "--json").json()["id"]
        script = f"while [ ! -e {mark} ]; do sleep 0.1; done; echo done > {mark}"
        said = live.call(
            "run", "--env", "lab", "--detach", "--json", "--", "/bin/sh", "-c", script
        )
        run = said.json()["id"]
        until("a running command", lambda: show(live, run)["step"] == "heartbeat")
        busy = show(live, run)["lease_id"]
    assert sandboxes(live) == {idle["id"], created, busy}

    put_back(live, backup)
    with live:
        doctor = live.call("doctor")
        assert doctor.code == 1
        assert "leasehold db restored" in doctor.out
        explained = live.call("explain", idle["id"], "--json").json()
        assert "was restored" in explained["reason"]
        assert live.call("run", "--env", "lab", "--", "true").code == 4, "nothing is begun"
        refused = live.call("reconcile", "--json")
        assert refused.code == 1
        assert (refused.json()["ok"], refused.json()["alarm"] is None) == (False, False)
        assert sandboxes(live) == {idle["id"], created, busy}

        assert live.call("db", "restored", "--json").code == 0
        until(
            "sandboxes taken in",
            lambda: (
                {row["id"] for row in leases(live, "--status", "retained")}
                == {idle["id"], created, busy}
            ),
        )
        assert live.call("run", "--env", "lab", "--", "true").code == 0, "work goes on"
        proven = live.call("reconcile", "--json")
        assert (proven.code, proven.json()["ok"]) == (0, True), proven.out
        assert sandboxes(live) == {idle["id"], created, busy}
        mark.touch()
        until("the end of today's command", lambda: mark.read_text() == "done\n")
        for lease_id in (idle["id"], created, busy):
            assert live.call("leases", "destroy", lease_id).code == 0
        until("empty places", lambda: not sandboxes(live))
        assert live.call("verify").code == 0
        assert live.call("doctor").code == 0


def show(live: Live, run_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = live.call("runs", "show", run_id, "--json").json()
    return shown


@pytest.mark.proof
def test_reconcile_destroys_what_no_lease_knows_and_proves_zero_orphans(live: Live) -> None:
    with live:
        kept = ("--provider", "local", "--policy", "reuse_by_environment")
        assert live.call("env", "create", "pool", *kept).code == 0
        assert live.call("run", "--env", "pool", "--", "true").code == 0
        (idle,) = leases(live, "--status", "idle")
        proven = live.call("reconcile", "--json").json()
        local = next(r for r in proven["reports"] if r["provider"] == "local")
        assert (proven["ok"], local["listed"], local["matched"]) == (True, 1, 1)
        assert "zero orphans" in proven["proof"]
        # Somebody removes a sandbox behind our back.
        shutil.rmtree(live.home / "host" / "sandboxes" / "local" / f"lease-{idle['id']}")
        looked = live.call("reconcile", "--dry-run")
        assert (looked.code, "missing" in looked.err) == (1, True), looked.err
        assert leases(live, "--status", "idle"), "a dry run changes nothing"
        live.call("reconcile")
        until("its lease is over", lambda: not leases(live, "--live"))
        assert live.call("reconcile").code == 0
