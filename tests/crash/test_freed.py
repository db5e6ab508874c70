"""What a run has said takes no room in a sandbox that serves others after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.acts import words
from crash.harness import Cells, Engine
from crash.stage import Stage
from leasehold import seams
from leasehold.errors import UnavailableError
from leasehold.store import executions


@pytest.fixture
def stage(cells: Cells) -> Iterator[Stage]:
    cell = cells.make()
    made = Stage(cell, cell.database_url, furnished=True)
    yield made
    made.check()
    made.close()


def carried(engine: Engine, provider: str, key: str) -> str:
    argv = words(provider, engine.cell.mark(key))
    environment = f"{provider}.reuse_by_environment"
    run_id = engine.submit(key, [argv], environment=environment)
    engine.until(lambda: engine.over(key) and engine.quiet())
    return run_id


def kept(stage: Stage) -> list[Path]:
    """Return the files of commands' output in the sandboxes."""
    found = (stage.cell.path / "host" / "sandboxes").rglob("*")
    return [one for one in found if one.name in {"out", "err"} and one.is_file()]


def told(engine: Engine, run_id: str) -> bytes:
    with engine.database.read() as tx:
        (row,) = executions.of_run(tx, run_id)
        return executions.output(tx, row["id"], stream="stdout", offset=0)


@pytest.mark.parametrize("provider", ["local", "fake_plugin"])
def test_its_output_is_freed_before_the_next_one_comes(stage: Stage, provider: str) -> None:
    engine = stage.engine("worker")
    runs = [carried(engine, provider, key) for key in ("first", "second")]
    assert len(engine.leases()) == 1
    assert kept(stage) == []
    assert [told(engine, run) for run in runs] == [b"one two\n"] * 2


def test_what_cannot_be_freed_delays_nothing(stage: Stage) -> None:
    engine = stage.engine("worker")

    def refuse(name: str) -> None:
        if name == "provider.forget:before":
            raise UnavailableError("not now")

    with seams.listening(refuse):
        run = carried(engine, "local", "first")
    assert engine.leases()[0]["status"] == "idle"
    assert kept(stage) != []
    assert told(engine, run) == b"one two\n"


def test_a_sandbox_that_is_kept_to_look_into_keeps_its_output(stage: Stage) -> None:
    engine = stage.engine("worker")
    argv = words("local", engine.cell.mark("run"), code=3)
    engine.submit("run", [argv], environment="local.retain_on_failure")
    engine.until(lambda: engine.over("run") and engine.quiet())
    assert engine.leases()[0]["status"] == "retained"
    assert kept(stage) != []
