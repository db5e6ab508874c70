"""
A commit whose answer is lost: nobody dies, and the same worker finds out from the rows.

At each commit of a story the database's answer fails to come, once with the commit done
(``:after``) and once with it rolled back (``:before``). Nothing is claimed for ever, nothing
is done twice, and the worker needs no restart.
"""

import pytest

from crash.expected import Scenario
from crash.forks import Kill
from crash.harness import Cells
from crash.scenarios import SCENARIOS
from crash.sweep import tell

NAMES = {
    "success",
    "retry",
    "reuse",
    "cancel",
    "timeout",
    "held",
    "infra",
    "output",
    "workspace",
}
STORIES = [
    story
    for story in SCENARIOS
    if (story.provider == "fake" and story.name in NAMES) or story.id == "local-success"
]


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=[story.id for story in STORIES])
def test_a_lost_answer_costs_nothing_but_a_moment(cells: Cells, story: Scenario) -> None:
    first = tell(cells, story)
    seen: set[str] = set()
    for kill in first.kills(0, story):
        if kill.point.startswith("commit.") and kill.point not in seen:
            seen.add(kill.point)
            told = tell(cells, story, Kill(kill.point, kill.nth, answer_lost=True))
            assert not told.died
