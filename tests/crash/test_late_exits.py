"""
An exit that is told late changes nothing.

The worker that hears of it would claim the run and seize its sandbox, and a command that is
just being started there would find itself overtaken, and never start.
"""

from collections.abc import Iterator

import pytest

from crash.acts import FOREVER, words
from crash.harness import Cells
from crash.stage import Stage


@pytest.fixture
def stage(cells: Cells) -> Iterator[Stage]:
    cell = cells.make()
    made = Stage(cell, cell.database_url, furnished=True)
    yield made
    made.check()
    made.close()


@pytest.mark.parametrize("told", ["{run}.0.1", "{run}.url1.0", "{run}.url1.2"])
def test_what_ended_before_the_latest_start_is_not_taken_up(stage: Stage, told: str) -> None:
    """The exit of the command before, or of a question that the sandbox was asked."""
    engine = stage.engine("worker")
    mark = stage.cell.mark("run")
    commands = [words("fake", mark), words("fake", mark, seconds=FOREVER)]
    run = engine.submit("run", commands, environment="fake.ephemeral", grace_s=0.1)

    def rests() -> bool:
        row = engine.run("run")
        assert row is not None
        return row["starts"] == 2 and row["beat"] and row["claimed_by"] is None

    engine.until(rests)
    before = stage.rows()
    engine.handle(told.format(run=run))
    assert stage.rows() == before
    engine.cancel("run")
    engine.until(lambda: engine.over("run") and engine.quiet())
    assert stage.cell.starts("run") == 2
