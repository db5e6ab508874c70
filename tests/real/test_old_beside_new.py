"""
G10: the real program of an older commit beside the present one, on one database and one broker.

It is the last commit before `schema_serves` (ADR 0012), so its workers refuse the newer schema
when they start: what lives goes on, and a host is made whole by its upgrade. That is shown too.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from leasehold import bootstrap
from leasehold.domain.webhooks import WebhookSpec
from leasehold.orchestrator import hooking
from leasehold.store import schema
from leasehold.store.database import Row
from leasehold.vault.keys import Keys, make_file
from living import SHORT, Home, Process, wait_for
from services import Postgres
from webhooks.receiver import Receiver, receiving

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT: Final = Path(__file__).parents[2]
OLD: Final = "73b2cc838b934232de2f8d5a5bbc5c9aa9f78733"
OLD_HEAD: Final = "0009"
PATIENT_S: Final = 120.0
WAITS: Final = 'until test -e "$GATE"; do sleep 0.1; done; echo end'
SCRIPT: Final = f'echo $$ >> "$MARKS/$NAME"; {WAITS}'


@pytest.fixture(scope="module")
def old_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the older commit; a clone without history is no place for this test."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "archive", OLD, "src", "workers"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        # A package of sources has no history, and it is no service that could be installed.
        pytest.skip(
            f"commit {OLD} is not here: this needs the whole history (git fetch --unshallow):"
            f" {done.stderr.decode(errors='replace')}"
        )
    where = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(where, filter="data")
    return where


class Old:
    """The older program: its commands, and agents on hosts of their own."""

    def __init__(self, program: Path, path: Path, *, database: str, broker: str) -> None:
        places = [program / "src", *sorted((program / "workers").glob("*/src"))]
        self.path, self.marks = path, path / "old-marks"
        self.marks.mkdir()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")},
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "LEASEHOLD_DATABASE_URL": database,
            "LEASEHOLD_BROKER_URL": broker,
            "LEASEHOLD_STORE_URL": str(path / "store"),
            "LEASEHOLD_TIMERS": json.dumps(SHORT),
            "LEASEHOLD_LOG_JSON": "true",
            "LEASEHOLD_WORKER_THREADS": "4",
        }
        self.processes: list[Process] = []
        self._count = 0

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "leasehold", *arguments],
            env=self.environment | {"LEASEHOLD_HOME": str(self.path / "nowhere")},
            capture_output=True,
            text=True,
            timeout=PATIENT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def agent(self, home: Path) -> Process:
        process = Process(
            [sys.executable, "-m", "leasehold.agent"],
            environment=self.environment | {"LEASEHOLD_HOME": str(home)},
            log=self.path / f"old-agent-{len(self.processes)}.log",
        )
        self.processes.append(process)
        return process

    def submit(self, gate: Path) -> str:
        self._count += 1
        variables = {"MARKS": self.marks, "GATE": gate, "NAME": f"old-{self._count}"}
        options = [part for k, v in variables.items() for part in ("-e", f"{k}={v}")]
        shell = ("--", "/bin/sh", "-c", SCRIPT)
        said = self.call(
            "run", "--detach", "--json", "--provider", "fake_plugin", *options, *shell
        )
        return str(json.loads(said)["id"])

    def starts(self) -> list[int]:
        return [len(path.read_text().splitlines()) for path in sorted(self.marks.iterdir())]

    def end(self) -> None:
        for process in self.processes:
            process.end()
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.environ().get("MARKS") == str(self.marks):
                    one.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def ready(home: Home, host_home: Path, kind: str = "steps") -> Row | None:
    """Return the worker of this kind that a host has ready."""
    host_id = bootstrap.host_id_of(host_home / "host")
    with home.app.database.read() as tx:
        return tx.one(
            "SELECT * FROM workers WHERE host_id = :host AND kind = :kind"
            " AND status = 'ready' ORDER BY id DESC LIMIT 1",
            host=host_id,
            kind=kind,
        )


def kill(home: Home, host_home: Path) -> int:
    row = ready(home, host_home)
    assert row is not None
    os.kill(row["pid"], signal.SIGKILL)
    return int(row["pid"])


def made_whole(home: Home, host_home: Path, *, besides: int = 0) -> None:
    def there() -> bool:
        steps, beats = ready(home, host_home), ready(home, host_home, "beats")
        return steps is not None and beats is not None and steps["pid"] != besides

    wait_for(f"ready workers of {host_home.name}", there, within_s=PATIENT_S)


def hooked(home: Home, url: str) -> None:
    make_file(home.path / "secret-keys")
    keys = Keys.load(home.path / "secret-keys")
    with home.app.database.write("test") as tx:
        spec = WebhookSpec(name="hook", url=url)
        hooking.create(tx, keys, spec, tenant_id="default", actor="test")


def owed(home: Home) -> list[Row]:
    with home.app.database.read() as tx:
        return tx.all("SELECT * FROM webhook_deliveries")


def judged(home: Home, old: Old, ids: list[str], receiver: Receiver) -> None:
    """Nothing is lost, nothing done twice, and who is told was told once."""
    rows: list[Any] = [home.finished(run_id, within_s=PATIENT_S) for run_id in ids]
    assert [(row["status"], row["exit_code"]) for row in rows] == [("succeeded", 0)] * len(ids)
    assert all(home.output(run_id) == b"end\n" for run_id in ids)
    assert [*old.starts(), *home.starts()] == [1] * len(ids)
    wait_for(
        "deliveries that are over",
        lambda: all(row["status"] == "delivered" for row in owed(home)),
        within_s=PATIENT_S,
    )
    told = sorted(row["run_id"] for row in owed(home))
    assert told, "runs that new workers ended are told of"
    heard = [json.loads(got.body)["data"]["run"]["id"] for got in receiver.got]
    assert sorted(heard) == told
    home.settled()


def test_runs_go_through_both_while_both_are_killed_and_one_is_upgraded(
    old_program: Path, redis_url: str, postgres: Postgres, tmp_path: Path, receiver: Receiver
) -> None:
    gate, later = tmp_path / "gate", tmp_path / "later"
    first, second = tmp_path / "host-1", tmp_path / "host-2"
    with postgres.database() as url:
        old = Old(old_program, tmp_path, database=url, broker=redis_url)
        try:
            old.call("db", "upgrade")
            agents = [old.agent(first), old.agent(second)]
            wait_for(
                "old hosts",
                lambda: len(json.loads(old.call("workers", "list", "--json"))) >= 4,
                within_s=PATIENT_S,
            )
            ids = [old.submit(gate) for _ in range(4)]
            wait_for("old runs", lambda: old.starts() == [1] * 4, within_s=PATIENT_S)
            # The schema goes first: under old workers, with their commands running.
            with Home(
                tmp_path / "host-3",
                broker_url=redis_url,
                database_url=url,
                LEASEHOLD_STORE_URL=str(tmp_path / "store"),
                LEASEHOLD_WEBHOOK_NETWORKS="127.0.0.0/8",
            ) as home:
                assert schema.state(home.app.database).current not in {None, OLD_HEAD}
                hooked(home, receiver.url)
                agents.append(home.agent())
                made_whole(home, home.path)
                env = {"GATE": str(later)}
                ids += [home.submit(WAITS, env=env) for _ in range(6)]
                wait_for("new runs", lambda: home.starts() == [1] * 6, within_s=PATIENT_S)
                # Both kinds lose a worker with commands in it.
                gone = kill(home, home.path)
                made_whole(home, home.path, besides=gone)
                kill(home, first)
                wait_for(
                    "its next worker to be refused",
                    lambda: "newer than this code" in agents[0].text(),
                    within_s=PATIENT_S,
                )
                gate.touch()
                ids += [home.submit(WAITS, env=env) for _ in range(4)]
                # The first host is upgraded; the second goes on as it is.
                agents[0].send(signal.SIGTERM)
                assert agents[0].ended(within_s=PATIENT_S) == 0
                agents.append(home.agent(LEASEHOLD_HOME=str(first)))
                made_whole(home, first)
                assert ready(home, second) is not None, "an old worker still works"
                later.touch()
                judged(home, old, ids, receiver)
                for agent in agents[1:]:
                    agent.send(signal.SIGTERM)
                assert [agent.ended(within_s=PATIENT_S) for agent in agents[1:]] == [0] * 3
                texts = [agent.text() for agent in agents]
                assert not any("session.lost" in text for text in texts)
                assert not any("newer than this code" in text for text in texts[1:])
        finally:
            old.end()
