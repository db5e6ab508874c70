"""The real Flower, from PyPI, lists every step as a job of its own, though most pay no hop."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from leasehold.embedded import broker
from leasehold.provider.fake_world import World
from living import Home, wait_for

STEPS = {f"leasehold.{s}" for s in ("validate", "acquire", "execute", "heartbeat", "release")}


class Flower:
    """Flower's own API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310
                return json.load(answer)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        """Return the jobs whose root is this run, in the order that they were received."""
        tasks = self.get("/api/tasks?limit=1000") or {}
        ours = [task for task in tasks.values() if task["root_id"] == run_id]
        return sorted(ours, key=lambda task: task["received"])

    def ended(self, run_id: str, *, release: str = "SUCCESS") -> list[dict[str, Any]]:
        """Wait until the run's release is told; return all its jobs."""

        def found() -> list[dict[str, Any]]:
            steps = self.steps(run_id)
            over = [s for s in steps if s["name"].endswith("release") and s["state"] == release]
            return steps if over and all(s["state"] != "STARTED" for s in steps) else []

        steps: list[dict[str, Any]] = wait_for(f"jobs of {run_id} in Flower", found)
        return steps


@pytest.fixture
def home(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("flower")
    with Home(path, broker_url=redis_url, LEASEHOLD_EVENTS="true") as home:
        yield home


@pytest.fixture
def flower(home: Home) -> Flower:
    port = broker.free_port()
    home.start(
        *(sys.executable, "-m", "celery", "-A", "leasehold.celery_app", "flower"),
        *(f"--port={port}", "--address=127.0.0.1"),
        name="flower",
        FLOWER_UNAUTHENTICATED_API="true",
    )
    home.agent()
    home.ready()
    flower = Flower(port)
    wait_for("Flower", lambda: flower.get("/api/tasks") is not None)
    return flower


def test_flower_lists_each_step_of_a_run_and_shows_the_one_that_failed(
    home: Home, flower: Flower
) -> None:
    quick = home.submit("true")
    # Long enough for several beats: they are one job all the same.
    slow = home.submit("sleep 1.2; exit 3", env={"SECRET": "hunter2"})
    world = World(home.settings.host_home / "sandboxes" / "fake")
    world.script("acquire", fail="provider_unavailable")
    twice = home.submit("", provider="fake", commands=[{"argv": ["echo", "hi"]}])
    for run_id, status in ((quick, "succeeded"), (slow, "failed"), (twice, "succeeded")):
        assert home.finished(run_id)["status"] == status
    for run_id in (quick, slow):
        jobs = flower.ended(run_id)
        assert {job["name"] for job in jobs} == STEPS
        assert len(jobs) == len(STEPS), "each step is one job"
        assert {job["state"] for job in jobs} == {"SUCCESS"}
        assert len({job["uuid"] for job in jobs}) == len(STEPS)
    by_name = {job["name"]: job for job in flower.steps(slow)}
    assert by_name["leasehold.heartbeat"]["result"] == "exit code 3"
    assert by_name["leasehold.heartbeat"]["runtime"] >= 1
    assert by_name["leasehold.acquire"]["args"].startswith(f"('run', '{slow}', ")
    failing = [job for job in flower.ended(twice) if job["name"] == "leasehold.acquire"]
    assert [job["state"] for job in failing] == ["FAILURE", "SUCCESS"]
    assert "scripted" in failing[0]["exception"]
    assert "hunter2" not in json.dumps(flower.get("/api/tasks?limit=1000"))
    home.settled()
