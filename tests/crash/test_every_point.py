"""
P1 to P6 and P9 under SIGKILL: a worker is killed at every point that a story passes.

The points are not listed anywhere: a first telling without a kill writes them down. Then, for
each of them, a worker of a fresh cell kills itself there and another one brings the story to
its end. What only a recovery passes is killed as well, so a second worker dies on the way. In
the end the source is asked for the names of all its points; one that no story reached fails
the suite.
"""

import json
from pathlib import Path
from typing import Final

import pytest

from crash import points
from crash.expected import Scenario
from crash.forks import Kill, until
from crash.harness import Cells
from crash.scenarios import SCENARIOS
from crash.sweep import tell


@pytest.fixture(scope="session")
def reached(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the directory in which each story leaves the points that it reached."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    path = shared / "reached"
    path.mkdir(exist_ok=True)
    return path


def _file(scenario: Scenario, *, whole: bool) -> str:
    return f"{scenario.id}.{'told' if whole else 'killed'}.json"


def _leave(reached: Path, scenario: Scenario, names: set[str], *, whole: bool = False) -> None:
    (reached / _file(scenario, whole=whole)).write_text(json.dumps(sorted(names)))


LATER: Final = [pytest.param(one, id=one.id) for one in SCENARIOS if one.proof]
KILLED: Final = [
    pytest.param(one, id=one.id, marks=[pytest.mark.proof] if one.proof else [])
    for one in SCENARIOS
]


@pytest.mark.parametrize("scenario", LATER)
def test_a_story_ends_as_told(cells: Cells, scenario: Scenario, reached: Path) -> None:
    told = tell(cells, scenario)
    _leave(reached, scenario, set(told.points[0]), whole=True)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", KILLED)
def test_a_worker_killed_at_any_point_changes_nothing(
    cells: Cells, scenario: Scenario, reached: Path
) -> None:
    names: set[str] = set()
    try:
        first = tell(cells, scenario)
        names.update(first.points[0])
        unseen: dict[str, Kill] = {}
        for kill in first.kills(0, scenario):
            told = tell(cells, scenario, kill)
            for point in told.points[-1]:
                if point not in names and scenario.only(point):
                    unseen.setdefault(point, kill)
        for point, kill in unseen.items():
            names.add(point)
            tell(cells, scenario, kill, Kill(point, 1))
    finally:
        _leave(reached, scenario, names)


def test_no_point_of_the_source_is_out_of_reach(
    request: pytest.FixtureRequest, reached: Path
) -> None:
    tellings = [
        (story, item.function is test_a_story_ends_as_told)
        for item in request.session.items
        if isinstance(item, pytest.Function) and "scenario" in item.fixturenames
        if isinstance(story := item.callspec.params["scenario"], Scenario)
    ]
    if {story.id for story, _ in tellings} != {story.id for story in SCENARIOS}:
        pytest.skip("not all stories are told in this session")
    asked = {_file(story, whole=whole) for story, whole in tellings}

    def told() -> bool:
        return {path.name for path in reached.glob("*.json")} >= asked

    until(told, "every story was told", within_s=110)
    names = {name for path in reached.glob("*.json") for name in json.loads(path.read_text())}
    wanted = points.of_source()
    assert not (missed := points.unreached(wanted, names)), (
        "no story reaches these points; tell one, or say why not in points.ELSEWHERE: "
        + ", ".join(sorted(missed))
    )
    assert not (stale := points.stale_exceptions(wanted, names)), (
        f"these exceptions are not needed any more: {', '.join(sorted(stale))}"
    )
