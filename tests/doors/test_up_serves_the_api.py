"""`leasehold up` serves the REST API as well, on a port that it holds itself."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from command_line import Live, until

pytestmark = pytest.mark.slow


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path / "home")
    try:
        yield live
    finally:
        live.down()


def api_of(stack: dict[str, Any]) -> psutil.Process:
    def found() -> psutil.Process | None:
        for child in psutil.Process(stack["pid"]).children():
            if "api" in child.cmdline() and "--fd" in child.cmdline():
                return child
        return None

    process: psutil.Process = until("the API's process", found)
    return process


def test_it_answers_and_comes_back_when_it_is_killed(live: Live) -> None:
    where = live.up("--api-port", "0")
    key = live.call("keys", "create", "mine", "--role", "operator").out.strip()
    with httpx.Client(
        base_url=where["api"], headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        # Asked before it has started, or while it starts again, it answers later.
        body = {"commands": [{"argv": ["true"]}]}
        run = client.post("/api/v1/runs", json=body)
        assert run.status_code == 201, run.text
        first = api_of(where)
        first.kill()
        first.wait(30)
        assert client.get(f"/api/v1/runs/{run.json()['id']}").status_code == 200
        assert api_of(where).pid != first.pid
    last = api_of(where)
    live.down()
    assert not psutil.pid_exists(last.pid)


def test_it_ends_with_a_stack_that_is_killed(live: Live) -> None:
    where = live.up("--api-port", "0")
    process = api_of(where)
    agents = [child for child in psutil.Process(where["pid"]).children() if child != process]
    os.kill(where["pid"], signal.SIGKILL)
    process.wait(60)
    for agent in agents:
        agent.wait(60)
    assert live.stack is not None
    live.stack.wait(30)
    assert live.stack.stdout is not None
    live.stack.stdout.close()
    live.stack = None


def test_a_port_that_is_taken_is_said_before_anything_starts(live: Live) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = live.call_bytes("up", "--api-port", str(port))
    assert said.returncode == 2
    assert f"--api-port: 127.0.0.1:{port} cannot be taken" in said.stderr.decode()
    assert b"Traceback" not in said.stderr


def test_the_link_that_it_prints_signs_a_browser_in_once(live: Live) -> None:
    where = live.up("--api-port", "0")
    fresh = {"Connection": "close"}
    with (
        httpx.Client(timeout=60) as browser,
        httpx.Client(timeout=60, headers=fresh) as late,
    ):
        assert browser.get(where["monitor"]).status_code == 303
        assert late.get(where["monitor"]).status_code == 401
        api_of(where).kill()
        # Who is signed in stands in the database, not in the process.
        cookies = dict(browser.cookies)
        page = httpx.get(f"{where['api']}/monitor", cookies=cookies, timeout=60)
        assert page.status_code == 200
        assert "monitor · admin" in page.text
        joined = live.start("up", "--json")
        assert joined.stdout is not None
        again = json.loads(joined.stdout.readline())
        joined.send_signal(signal.SIGTERM)
        joined.communicate(timeout=60)
        assert late.get(again["monitor"]).status_code == 303
