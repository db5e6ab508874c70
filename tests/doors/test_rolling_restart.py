"""A new agent replaces an old one on the same host: no command notices."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery.signals import worker_shutting_down

from leasehold import transport
from leasehold.agent import child
from leasehold.feed import Feed
from leasehold.settings import Settings
from living import Home, wait_for

COUNT = 5
SCRIPT = 'i=0; until test -e "$GATE"; do i=$((i+1)); sleep 0.1; done; echo through; exit 7'


@pytest.fixture
def home(redis_url: str, tmp_path: Path) -> Iterator[Home]:
    with Home(tmp_path / "home", broker_url=redis_url) as home:
        yield home


@pytest.mark.parametrize("overlap", [False, True], ids=["one after the other", "both at once"])
def test_commands_go_on_through_a_rolling_restart_and_none_is_started_again(
    home: Home, tmp_path: Path, overlap: bool
) -> None:
    gate = tmp_path / "gate"
    old = home.agent()
    before = home.ready()
    ids = [home.submit(SCRIPT, env={"GATE": str(gate)}) for _ in range(COUNT)]
    home.running(ids)
    if overlap:
        new = home.agent()
        wait_for("two live sessions", lambda: home.live_sessions() == 2)
        home.ready(besides=list(before.values()))
        old.send(signal.SIGTERM)
    else:
        old.send(signal.SIGTERM)
        assert old.ended() == 0
        new = home.agent()
    assert old.ended() == 0
    for run_id in ids:
        assert f"run {run_id} goes on by itself" in old.text()
        assert home.run(run_id)["status"] == "running"
    home.ready(besides=list(before.values()))
    assert home.live_sessions() == 1
    gate.touch()
    for run_id in ids:
        row = home.finished(run_id)
        assert (row["status"], row["exit_code"], row["infra_attempts"]) == ("failed", 7, 0)
        assert home.output(run_id) == b"through\n"
    assert home.starts() == [1] * COUNT
    home.settled()
    assert not new.said("session.lost")


def test_a_second_term_on_top_of_the_first_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_of_end: Any = worker_shutting_down
    monkeypatch.setattr(signal_of_end, "lock", signal_of_end.lock)
    celery = transport.make(Settings(home=tmp_path), broker_url="redis://127.0.0.1:1/0")
    child.equip(celery, Feed())

    def twice() -> None:
        with signal_of_end.lock:  # as far as the handler of the first one has come
            signal_of_end.send(sender="test", sig="SIGTERM", how="Warm", exitcode=0)

    def told(**_: Any) -> None:
        seen.set()

    seen = threading.Event()
    signal_of_end.connect(told, weak=False)
    handler = threading.Thread(target=twice, daemon=True)
    handler.start()
    assert seen.wait(10)
    handler.join(10)
    signal_of_end.disconnect(told)


def test_a_worker_that_is_told_many_times_to_stop_stops(home: Home) -> None:
    agent = home.agent()
    old = list(home.ready().values())
    for _ in range(300):
        for pid in old:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    home.ready(besides=old)
    wait_for("their end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in old))
    agent.send(signal.SIGTERM)
    assert agent.ended() == 0
