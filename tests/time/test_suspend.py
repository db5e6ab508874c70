"""All is stopped for longer than all timers, and continued: no command is lost."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from leasehold.embedded import broker
from living import HASTY, Home, wait_for

SOON: Final = {**HASTY, "sandbox_ttl": 45, "host_grace": 3, "child_silent": 10} | {
    "canary_every": 1,
    "deaf_after": 4,
}
"""Every timer is shorter than the pause, the sandbox's own time to live too."""

PAUSE_S: Final = 48.0
COUNT: Final = 'i=0; until test -e "$GATE"; do i=$((i+1)); echo $i; sleep 0.1; done; echo end'


@pytest.fixture
def broker_url() -> Iterator[str]:
    with broker.running(broker.choose()) as url:
        yield url


def ready(home: Home) -> None:
    wait_for("workers", lambda: home.workers().keys() >= {"steps", "beats"}, within_s=90)


def everything(home: Home) -> list[psutil.Process]:
    """Return the agent, its children, the commands and their supervisors, the oldest first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            ours = environment.get("LEASEHOLD_HOME") == str(home.path)
            if process.pid != os.getpid() and (
                ours or environment.get("MARKS") == str(home.marks)
            ):
                found.append(process)
    found += [child for parent in list(found) for child in _children(parent)]
    unique = {process.pid: process for process in found}
    return sorted(unique.values(), key=lambda process: process.create_time())


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def pause(seconds: float) -> None:
    """Let real time pass: the pause is what is tested."""
    until = time.monotonic() + seconds
    wait_for("the pause", lambda: time.monotonic() > until, within_s=seconds + 30)


def whole(home: Home, run_id: str) -> None:
    """See that the output has every line, once."""
    lines = home.output(run_id).decode().split()
    assert lines[-1] == "end"
    assert lines[:-1] == [str(n + 1) for n in range(len(lines) - 1)]


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_after_a_suspend_longer_than_all_timers_everything_goes_on(
    broker_url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Home(tmp_path / "home", broker_url=broker_url, timers=SOON) as home:
        home.agent()
        ready(home)
        runs = [home.submit(COUNT, provider="local", env={"GATE": str(gate)}) for _ in range(3)]
        home.running(runs, within_s=60)
        stopped = everything(home)
        for process in stopped:
            # A command's own `sleep` may have ended meanwhile.
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        pause(PAUSE_S)
        for process in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                process.resume()
        later = home.submit("echo later", provider="local")
        assert home.finished(later, within_s=60)["status"] == "succeeded"
        gate.touch()
        for run_id in runs:
            row = home.finished(run_id, within_s=60)
            assert (row["status"], row["infra_attempts"]) == ("succeeded", 0), row
            whole(home, run_id)
        assert home.starts() == [1] * 4
        home.settled()
