"""A plugin that answers nonsense harms the runs that it answers about, and no others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from crash.acts import words
from crash.harness import Cells, Engine
from crash.stage import Stage
from leasehold.provider.contract import Polled, PollItem


@pytest.fixture
def stage(cells: Cells) -> Iterator[Stage]:
    cell = cells.make()
    made = Stage(cell, cell.database_url, furnished=True)
    yield made
    made.check()
    made.close()


def breaking(engine: Engine, *, whole: list[str], answer: Any) -> None:
    """Let `poll` answer nonsense, or raise, for all runs but some."""
    provider = engine.runtime.registry.require("fake")
    poll = provider.poll

    def broken(items: Sequence[PollItem], **more: Any) -> list[Polled]:
        polled = poll(items, **more)
        if isinstance(answer, Exception) and not whole:
            raise answer
        return [
            one if one.execution_id.split(".")[0] in whole else replace(one, exit=answer)
            for one in polled
        ]

    setattr(provider, "poll", broken)  # noqa: B010  a plugin's fault, not a mock of ours


def submit(engine: Engine, key: str) -> str:
    argv = words("fake", engine.cell.mark(key), seconds=0.05)
    return engine.submit(key, [argv], environment="fake.ephemeral")


def test_one_item_that_cannot_be_recorded_does_not_hold_up_the_batch(stage: Stage) -> None:
    engine = stage.engine("worker")
    bad, good = submit(engine, "bad"), submit(engine, "good")
    whole = [good]
    breaking(engine, whole=whole, answer=object())
    engine.until(lambda: engine.over("good"))
    assert not engine.over("bad")
    whole.append(bad)
    engine.until(lambda: engine.over("bad", "good") and engine.quiet())
    assert [stage.cell.starts(key) for key in ("bad", "good")] == [1, 1]


def test_a_poll_that_raises_what_no_contract_knows_is_asked_again(stage: Stage) -> None:
    engine = stage.engine("worker")
    run = submit(engine, "run")
    whole: list[str] = []
    breaking(engine, whole=whole, answer=RuntimeError("a fault of the plugin"))
    engine.until(lambda: bool(stage.cell.starts("run")))
    for _ in range(20):
        engine.turn()
    assert not engine.over("run")
    whole.append(run)
    engine.until(lambda: engine.over("run") and engine.quiet())
    assert stage.cell.starts("run") == 1
