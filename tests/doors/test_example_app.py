"""examples/fastapi_app does what its README says, on a real stack."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from command_line import Live, until

pytestmark = pytest.mark.slow
APP = Path(__file__).parents[2] / "examples" / "fastapi_app"


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live(tmp_path / "home")


@pytest.fixture
def shop(live: Live) -> Iterator[httpx.Client]:
    """The app beside a stack, as processes of their own."""
    where = live.up("--port", "0")
    process = None
    try:
        token = live.call("keys", "create", "shop", "--role", "viewer").out.strip()
        database = f"sqlite:///{live.home / 'leasehold.db'}"
        more = {"LEASEHOLD_API_URL": where["api"], "LEASEHOLD_API_TOKEN": token}
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "--app-dir", str(APP), "main:app"),
                    *("--fd", str(listening.fileno()), "--log-level", "warning"),
                ],
                env={**live.environ(), **more, "DATABASE_URL": database},
                pass_fds=[listening.fileno()],
                cwd=os.sep,
            )
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
    finally:
        if process is not None:
            process.terminate()
            assert process.wait(30) in {0, -15}
        live.down()


def test_an_order_and_its_run_are_there_together_or_not_at_all(
    shop: httpx.Client, live: Live
) -> None:
    made = shop.post("/orders", params={"question": "how many words"})
    assert made.status_code == 201, made.text

    def answered() -> Any:
        shown = shop.get(f"/orders/{made.json()['id']}").json()
        return shown if shown["status"] == "succeeded" else None

    assert until("it is counted", answered)["words"] == "3"
    assert shop.post("/orders", params={"question": " "}).status_code == 422
    again = shop.post("/orders", params={"question": "two words"}).json()
    there = {run["id"] for run in live.call("runs", "list", "--json").json()}
    assert there == {made.json()["run_id"], again["run_id"]}
    assert shop.get("/orders/3").status_code == 404
