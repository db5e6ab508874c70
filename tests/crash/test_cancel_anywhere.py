"""
A cancel that comes at any moment ends the run, with proof, or after the exit that came first.

The request is written by another connection at each point that the run passes. Points just
before a commit are left out: there the writer's lock is held, so a cancel comes after it.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from crash.acts import FOREVER, one_run
from crash.expected import Expected, Scenario
from crash.forks import Kill
from crash.harness import Cells, Engine
from crash.sweep import tell


def cancelling_at(place: Kill) -> Callable[[Engine, str, int], None]:
    def watch(engine: Engine, point: str, nth: int) -> None:
        if (point, nth) == (place.point, place.nth):
            engine.cancel("run")

    return watch


def story(provider: str, **command: float) -> Scenario:
    return Scenario(
        name="cancelled",
        provider=provider,
        act=one_run(provider, command=command, grace_s=0.1),
        expect={
            "run": Expected(
                status="cancelled",
                code="cancelled",
                or_else=frozenset() if command else frozenset({("succeeded", None)}),
                starts=(0, 1),
                stdout=None,
                stderr=None,
            )
        },
    )


def places(cells: Cells, told: Scenario) -> list[Kill]:
    first = tell(cells, replace(told, expect={}))
    return [
        place
        for place in first.kills(0, told)
        if not (place.point.startswith("commit.") and place.point.endswith(":before"))
        and not place.point.startswith("commit.door.submit")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["fake", "local"])
def test_a_quick_command_is_cancelled_or_was_over_before(cells: Cells, provider: str) -> None:
    quick = story(provider)
    for place in places(cells, quick):
        tell(cells, replace(quick, watch=cancelling_at(place)))


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["fake", "local"])
def test_an_endless_command_is_cancelled_wherever_the_run_is(
    cells: Cells, provider: str
) -> None:
    endless = story(provider, seconds=FOREVER)
    quick = story(provider)
    first = [p for p in places(cells, quick) if not p.point.startswith("commit.beat")]
    for place in first:

        def watch(engine: Engine, point: str, nth: int, place: Kill = place) -> None:
            # What a run passes only after its exit never comes; a beat is late enough.
            late = point == "commit.beat.rest:after" and nth == 2
            if (point, nth) == (place.point, place.nth) or late:
                engine.cancel("run")

        tell(cells, replace(endless, watch=watch))
