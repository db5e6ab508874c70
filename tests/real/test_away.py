"""
A database that is away for many lives of a session: nothing that runs is lost.

Twenty seconds by default, ten lives of a session. ``OUTAGE_S=600`` before the command makes it
ten minutes with the timers that everybody has.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import services
from chaos.servers import PostgresServer
from living import HASTY, wait_for
from real.stage import TIMERS, Stage, make_broker

OUTAGE_S: Final = float(os.environ.get("OUTAGE_S", "20"))
SOON: Final = {**TIMERS, **HASTY, "host_grace": 60}
DEFAULTS: Final[dict[str, float]] = {}
COUNT: Final = 'i=0; until test -e "$GATE"; do i=$((i+1)); echo $i; sleep 0.1; done; echo end'
ENDING: Final = (
    'until test -e "$GATE"; do sleep 0.1; done; seq 1 20000; : > "$GATE.$NAME"; exit 7'
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400 + int(OUTAGE_S))]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    try:
        postgres = PostgresServer()
        broker = make_broker("redis")
    except services.MissingServiceError as error:
        services.missing(error)
    timers = DEFAULTS if "OUTAGE_S" in os.environ else SOON
    made = Stage(tmp_path / "stage", postgres, broker, timers=timers)
    yield made
    made.close()
    broker.close()
    postgres.close()


def test_a_database_that_is_away_for_long_loses_no_running_command(
    stage: Stage, tmp_path: Path
) -> None:
    gate, end = tmp_path / "gate", tmp_path / "end"
    going_on = [stage.submit(COUNT, env={"GATE": str(gate)}) for _ in range(6)]
    ending = [stage.submit(ENDING, env={"GATE": str(end)}) for _ in range(6)]
    stage.started(going_on + ending)
    workers = stage.ready()

    stage.postgres.stop(immediate=False)
    end.touch()
    back_at = time.monotonic() + OUTAGE_S
    wait_for("the outage", lambda: time.monotonic() > back_at, within_s=OUTAGE_S + 60)
    assert len(list(tmp_path.glob("end.mark-*"))) == len(ending), "they end meanwhile"
    stage.postgres.start()

    later = stage.finished(stage.submit("echo later"))
    assert later["status"] == "succeeded"
    # An outage is no restart storm: who could not beat did nothing, and did not die.
    assert stage.agent.popen.poll() is None
    assert stage.ready() == workers
    gate.touch()
    for run_id in ending:
        row = stage.finished(run_id)
        assert (row["status"], row["exit_code"], row["infra_attempts"]) == ("failed", 7, 0)
        assert stage.home.output(run_id) == b"".join(b"%d\n" % n for n in range(1, 20001))
    for run_id in going_on:
        row = stage.finished(run_id)
        assert (row["status"], row["infra_attempts"]) == ("succeeded", 0), row
        lines = stage.home.output(run_id).split()
        assert lines == [b"%d" % n for n in range(1, len(lines))] + [b"end"]
        # It counted on while nobody could write it down.
        assert len(lines) > OUTAGE_S * 4
    runs = going_on + ending
    assert [stage.starts(run_id) for run_id in runs] == [1] * len(runs)
    stage.proven([])
