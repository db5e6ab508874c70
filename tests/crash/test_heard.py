"""A sandbox is not asked where it reaches the API if its like has answered a moment ago."""

from collections import Counter
from collections.abc import Iterator

import pytest

from crash.acts import knows_an_api, words
from crash.harness import Cells, Engine
from crash.stage import Stage
from leasehold import seams
from leasehold.domain.specs import EnvironmentSpec, parse
from leasehold.orchestrator import hearing, submit
from leasehold.store.sql import load


@pytest.fixture
def stage(cells: Cells) -> Iterator[Stage]:
    cell = cells.make()
    knows_an_api(cell)
    made = Stage(cell, cell.database_url, furnished=True)
    yield made
    made.check()
    made.close()


def carried(engine: Engine, key: str, environment: str = "local.ephemeral") -> bool:
    """Carry one run to its end; return whether its sandbox was asked."""
    passed: Counter[str] = Counter()
    with seams.listening(lambda name: passed.update([name])):
        argv = words("local", engine.cell.mark(key))
        engine.submit(key, [argv], environment=environment)
        engine.until(lambda: engine.over(key) and engine.quiet())
    run = engine.run(key)
    assert run is not None
    assert run["status"] == "succeeded"
    return bool(passed["provider.ask:before"])


def test_its_like_is_not_asked_for_a_minute(stage: Stage) -> None:
    engine = stage.engine("worker")
    assert carried(engine, "first")
    assert not carried(engine, "second")
    first, second = (load(lease["facts"])["runtime"] for lease in engine.leases())
    assert first == second
    with engine.database.read() as tx:
        said = tx.all("SELECT data FROM events WHERE name = 'runtime.chosen' ORDER BY id")
    assert [load(row["data"])["url"] for row in said] == [None, None]
    assert "of its like" in load(said[1]["data"])["reason"]
    engine.later(hearing.FOR_US + 1)
    assert carried(engine, "third")


def test_what_is_not_its_like_is_asked(stage: Stage) -> None:
    engine = stage.engine("worker")
    assert carried(engine, "first")
    with engine.database.write("test") as tx:
        values = {"name": "proxied", "provider": "local", "env": {"https_proxy": "http://a:1"}}
        submit.create_environment(tx, parse(EnvironmentSpec, values), tenant_id="default")
    assert carried(engine, "proxied", "proxied")
    assert carried(stage.engine("another"), "second")


def test_only_the_latest_are_remembered() -> None:
    heard = hearing.Heard()
    for number in range(1001):
        heard.keep(str(number), {"asked_at": 0})
    assert heard.of("0", now_us=0) is None
    assert heard.of("1", now_us=0) is not None
    assert heard.of("1", now_us=-1) is None
