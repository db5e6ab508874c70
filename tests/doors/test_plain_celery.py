"""``celery -A leasehold.celery_app worker``: a worker that is its own agent."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.concurrency import solo
from celery.concurrency import thread as threads

from leasehold.celery_app import wrong_pool
from living import HASTY, Home, wait_for

GO_ON = 'until test -e "$GATE"; do sleep 0.05; done; echo through'


@pytest.fixture
def home(redis_url: str, tmp_path: Path) -> Iterator[Home]:
    with Home(tmp_path / "home", broker_url=redis_url) as home:
        yield home


@pytest.fixture
def hasty(redis_url: str, tmp_path: Path) -> Iterator[Home]:
    with Home(tmp_path / "home", broker_url=redis_url, timers=HASTY) as home:
        yield home


def test_it_serves_a_run_and_drains_on_term(home: Home, tmp_path: Path) -> None:
    worker = home.celery()
    pids = home.ready()
    assert pids["steps"] == worker.pid
    assert pids["beats"] != worker.pid
    with redis.Redis.from_url(home.broker_url) as client:
        # Both layers of the guard are there before the consumer is made.
        for poison in ("garbage", '{"body": "", "properties": {}}'):
            client.lpush(f"{home.settings.broker_prefix}leasehold", poison)
    wait_for("two drops", lambda: len(worker.said("message.dropped")) == 2)
    run_id = home.submit("echo from a plain worker; exit 4")
    assert home.finished(run_id)["exit_code"] == 4
    assert home.output(run_id) == b"from a plain worker\n"
    home.settled()
    gate = tmp_path / "gate"
    waiting = home.submit(GO_ON, env={"GATE": str(gate)})
    home.running([waiting])
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0
    assert home.workers() == {}
    assert f"run {waiting} goes on by itself" in worker.text()
    assert home.run(waiting)["status"] == "running"
    home.celery()
    home.ready()
    gate.touch()
    assert home.finished(waiting)["status"] == "succeeded"
    assert home.output(waiting) == b"through\n"
    assert home.starts() == [1, 1]
    home.settled()


def test_killed_with_9_a_second_one_takes_over_and_starts_nothing_anew(
    hasty: Home, tmp_path: Path
) -> None:
    first = hasty.celery()
    before = hasty.ready()
    gate = tmp_path / "gate"
    run_id = hasty.submit(GO_ON, env={"GATE": str(gate)})
    hasty.running([run_id])
    first.send(signal.SIGKILL)
    first.ended()
    hasty.celery()
    hasty.ready(besides=list(before.values()))
    wait_for("the end of the first session", lambda: hasty.live_sessions() == 1)
    gate.touch()
    assert hasty.finished(run_id)["status"] == "succeeded"
    assert hasty.output(run_id) == b"through\n"
    assert hasty.starts() == [1]
    hasty.settled()


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], None),
        (["--pool=threads", "-Q", "x"], None),
        (["-P", "threads"], None),
        (["--pool", "prefork"], "prefork"),
        (["-Pprefork"], "prefork"),
        (["-c", "4", "-P", "gevent"], "gevent"),
    ],
)
def test_the_pool_that_was_asked_for_is_read_from_the_command_line(
    words: list[str], wrong: str | None
) -> None:
    # By then Celery has put its configured pool in the place of `prefork`.
    assert wrong_pool(threads.TaskPool, ["celery", "worker", *words]) == wrong


def test_a_pool_that_a_program_asks_for_is_refused_too() -> None:
    assert wrong_pool(solo.TaskPool, ["program"]) == "solo"


@pytest.mark.parametrize("pool", [["--pool=prefork"], ["-Psolo"]])
def test_another_pool_is_refused_with_the_reason_before_anything_is_consumed(
    home: Home, pool: list[str]
) -> None:
    worker = home.celery(*pool)
    assert worker.ended() == 1
    assert "Leasehold runs on --pool=threads only" in worker.text()
    assert len(worker.text().splitlines()) == 1
    assert home.workers() == {}


def test_gevent_which_patches_before_we_are_asked_serves_nothing_either(home: Home) -> None:
    worker = home.celery("--pool=gevent")
    assert worker.ended() != 0
    assert home.workers() == {}


def test_a_wrong_setting_is_one_line(home: Home) -> None:
    worker = home.celery(LEASEHOLD_WORKER_THREADS="many")
    assert worker.ended() == 1
    assert worker.text().startswith("leasehold: LEASEHOLD_WORKER_THREADS")
    assert len(worker.text().splitlines()) == 1
