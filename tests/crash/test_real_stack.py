"""
The embedded stack with real processes: Celery, a broker, an agent and its children.

Few and slow beside the rest of this suite; they show that what was proven in one process is
wired up in many. One stack serves them in turn, each leaves it whole for the next.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import redis

from crash.forks import until
from crash.harness import Cell
from leasehold import bootstrap, transport
from leasehold import settings as knobs
from leasehold.domain.lifecycle import RUN_ENDS
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.embedded.stack import Stack
from leasehold.orchestrator import submit
from leasehold.store import executions, history, hosts, invariants, leases, runs

TIMERS: Final = {
    "beat_every": 0.3,
    "holder_trust": 2,
    "session_ttl": 3,
    "observe_gap": 1,
    "host_grace": 20,
    "republish_base": 0.3,
    "republish_max": 1,
    "clock_max_sleep": 0.3,
    "heartbeat_max": 0.3,
    "retry_base": 0.05,
}
LINES: Final = 25
TALK: Final = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(110)]


class House:
    """One home, the stack that holds it, and what is asked of its rows."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = knobs.load(home=home, timers=TIMERS)
        self.log = (home / "agent.log").open("ab")
        self.marks = home / "marks"
        self.marks.mkdir()
        self.stack = self._up()
        self.app = bootstrap.build(self.settings)
        with self.app.database.write("test.environment") as tx:
            spec = {"name": "local", "provider": "local"}
            submit.ensure_environment(tx, parse(EnvironmentSpec, spec), tenant_id="default")

    def _up(self) -> Stack:
        stack = Stack(self.settings, processes=1, threads=4, agent_log=self.log)
        stack.start()
        stack.wait_ready()
        return stack

    def again(self) -> None:
        """Stop the stack as Ctrl-C does, and bring up a new one."""
        self.stack.stop()
        self.stack = self._up()

    def close(self) -> None:
        self.stack.stop()
        self.app.database.close()
        self.log.close()
        Cell(self.home).end()

    def submit(self, name: str, *scripts: str) -> str:
        """Submit a run of one command for each script; each marks its start."""
        mark = str(self.marks / name)
        commands = [
            {"argv": ["sh", "-c", f'echo started {n} >>"$0"; {script}', mark]}
            for n, script in enumerate(scripts)
        ]
        context = self.app.context(publish=transport.publisher(self.settings))
        request = submit.Request(
            spec=parse(RunSpec, {"commands": commands}), environment="local", key=name
        )
        with self.app.database.write("test.submit") as tx:
            row, _ = submit.submit(tx, context, request)
        return str(row["id"])

    def talking(self, name: str) -> str:
        """Submit a command that says a line every tenth of a second, for a while."""
        return self.submit(name, TALK)

    def workers(self) -> dict[str, int]:
        with self.app.database.read() as tx:
            return {row["kind"]: row["pid"] for row in hosts.ready_workers(tx)}

    def ready_again(self, *before: int, within_s: float = 30) -> None:
        """Wait until steps and beats are consumed by others than these processes."""

        def there() -> bool:
            self.stack.look()
            now = self.workers()
            return now.keys() >= {"steps", "beats"} and not set(now.values()) & set(before)

        until(there, "new workers", within_s=within_s)

    def starts(self, name: str) -> int:
        path = self.marks / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def stored(self, run_id: str) -> bytes:
        with self.app.database.read() as tx:
            return b"".join(
                executions.output(tx, row["id"], stream="stdout", offset=0)
                for row in executions.of_run(tx, run_id)
            )

    def over(self, *run_ids: str) -> bool:
        self.stack.look()
        with self.app.database.read() as tx:
            return all((runs.find(tx, one) or {})["status"] in RUN_ENDS for one in run_ids)

    def check(self, *names: str, ids: list[str], commands: int = 1) -> None:
        """All is over, was started once, said everything and left nothing."""
        until(lambda: self.over(*ids), "the runs are over", within_s=40)
        with self.app.database.read() as tx:
            ends = [(runs.find(tx, one) or {})["status"] for one in ids]
        assert ends == ["succeeded"] * len(ids)
        assert [self.starts(name) for name in names] == [commands] * len(names)

        def no_lease() -> bool:
            with self.app.database.read() as tx:
                return not leases.page(tx, tenant_id="default", live=True)

        until(no_lease, "no lease lives", within_s=20)
        with self.app.database.read() as tx:
            assert not (violations := invariants.check(tx)), violations
            assert not (differences := history.verify(tx)), differences


WHOLE: Final = b"".join(f"line {i}\n".encode() for i in range(LINES))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASEHOLD_TIMERS", json.dumps(TIMERS))
        made = House(tmp_path_factory.mktemp("house"))
        yield made
        made.close()


def test_killed_workers_are_replaced_and_the_commands_taken_up_again(house: House) -> None:
    run = house.talking("killed-worker")
    until(lambda: bool(house.stored(run)), "output comes", within_s=20)
    before = house.workers()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    house.ready_again(*before.values())
    house.check("killed-worker", ids=[run])
    assert house.stored(run) == WHOLE


def test_a_run_of_several_commands_goes_on_at_the_one_that_was_running(house: House) -> None:
    note = house.home / "note"
    run = house.submit("several", f"echo built >{note}; echo first", TALK, f"cat {note}")
    until(lambda: b"line 3\n" in house.stored(run), "the second one talks", within_s=20)
    before = house.workers()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    house.ready_again(*before.values())
    house.check("several", ids=[run], commands=3)
    marks = (house.marks / "several").read_text().splitlines()
    assert marks == ["started 0", "started 1", "started 2"]
    assert house.stored(run) == b"first\n" + WHOLE + b"built\n"
    with house.app.database.read() as tx:
        rows = executions.of_run(tx, run)
    assert [(row["command_index"], row["attempt"]) for row in rows] == [(0, 1), (1, 1), (2, 1)]
    assert {row["lease_id"] for row in rows} == {rows[0]["lease_id"]}


def test_workers_told_twice_to_stop_do_not_wait_for_themselves(house: House) -> None:
    before = house.workers()
    for _ in range(5):
        for pid in before.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.002)
    house.ready_again(*before.values(), within_s=9)


def test_a_killed_agent_is_replaced_and_the_commands_taken_up_again(house: House) -> None:
    run = house.talking("killed-agent")
    until(lambda: bool(house.stored(run)), "output comes", within_s=20)
    before = house.workers()
    assert house.stack.agent is not None
    os.kill(house.stack.agent.pid, signal.SIGKILL)
    house.stack.agent.wait()
    house.ready_again(*before.values())
    house.check("killed-agent", ids=[run])
    assert house.stored(run) == WHOLE


def test_a_broker_flushed_in_mid_load_loses_no_run(house: House) -> None:
    broker = redis.Redis.from_url((house.home / "broker-url").read_text().strip())
    names = [f"load-{number}" for number in range(30)]
    ids = []
    for number, name in enumerate(names):
        ids.append(house.submit(name, "echo done"))
        if number % 6 == 5:
            broker.flushall()
    flushed_until = time.monotonic() + 1.0
    until(lambda: bool(broker.flushall()) and time.monotonic() > flushed_until, "flushed")
    broker.close()
    house.check(*names, ids=ids)
    assert {house.stored(run) for run in ids} == {b"done\n"}


def test_a_drained_stack_leaves_commands_running_for_the_next_one(house: House) -> None:
    run = house.talking("drained")
    until(lambda: bool(house.stored(run)), "output comes", within_s=20)
    house.again()
    house.check("drained", ids=[run])
    assert house.stored(run) == WHOLE
