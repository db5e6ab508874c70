"""A child that waits with everything imported takes the place of one that dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from living import Home, Process, wait_for

pytestmark = pytest.mark.proof


@pytest.fixture
def home(redis_url: str, tmp_path: Path) -> Iterator[Home]:
    with Home(tmp_path / "home", broker_url=redis_url) as home:
        yield home


def children(agent: Process) -> set[int]:
    found = psutil.Process(agent.pid).children()
    return {child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE}


def spare(home: Home, agent: Process, *, besides: int = 0) -> int:
    """Wait for a child that is in no row; return its pid."""

    def alone() -> set[int]:
        return children(agent) - set(home.workers().values()) - {besides}

    home.ready()
    wait_for("one spare", lambda: len(alone()) == 1 and len(home.workers()) == 2, within_s=60)
    waiting = alone().pop()
    wait_for("its imports", lambda: agent.said("worker.warm", pid=waiting), within_s=60)
    return waiting


@pytest.mark.parametrize("kind", ["steps", "beats"])
def test_the_spare_takes_the_place_of_a_killed_worker_and_another_is_started(
    home: Home, kind: str
) -> None:
    agent = home.agent()
    waiting = spare(home, agent)
    run = home.submit("sleep 1; echo done")
    home.running([run])
    os.kill(home.workers()[kind], signal.SIGKILL)
    wait_for("its successor", lambda: home.workers().get(kind) == waiting, within_s=60)
    assert agent.said("worker.spawned", pid=waiting, warm=True, kind=kind)
    assert home.finished(run)["status"] == "succeeded"
    assert spare(home, agent, besides=waiting) != waiting
    assert home.starts() == [1]
    home.settled()


def test_a_killed_spare_costs_nothing(home: Home) -> None:
    agent = home.agent()
    waiting = spare(home, agent)
    workers = home.workers()
    os.kill(waiting, signal.SIGKILL)
    assert spare(home, agent, besides=waiting) != waiting
    assert home.workers() == workers
    assert not agent.said("worker.died")


def test_a_stopped_spare_is_not_trusted_with_a_place(home: Home) -> None:
    agent = home.agent()
    waiting = spare(home, agent)
    os.kill(waiting, signal.SIGSTOP)
    # Nobody hears it any more: in the end it is killed, and its successor is the spare.
    wait_for("its end", lambda: waiting not in children(agent), within_s=60)
    assert agent.said("worker.silent", pid=waiting)
    assert spare(home, agent, besides=waiting) not in home.workers().values()


def test_a_drained_or_killed_agent_leaves_no_spare(home: Home) -> None:
    first = home.agent()
    waiting = spare(home, first)
    first.send(signal.SIGTERM)
    assert first.ended() == 0
    assert not psutil.pid_exists(waiting)
    second = home.agent()
    waiting = spare(home, second)
    second.send(signal.SIGKILL)
    second.ended()
    wait_for("its end", lambda: not Path(f"/proc/{waiting}/cwd").exists())
