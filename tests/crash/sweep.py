"""Run one scenario in a cell: with the kills asked for, to its end, then look at everything."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from crash.acts import JUMP_US
from crash.expected import Expected, Scenario
from crash.forks import Kill, Listening, Watch, until, worker
from crash.harness import Cell, Cells, Engine
from leasehold.domain.lifecycle import LEASE_ENDS, ExecutionStatus
from leasehold.errors import StoreUnavailableError
from leasehold.store import executions, history, invariants


@dataclass(slots=True)
class Told:
    """What one telling of a scenario passed, by generation of its workers."""

    points: list[list[str]] = field(default_factory=list)
    died: int = 0

    def kills(self, generation: int, scenario: Scenario) -> list[Kill]:
        """
        Return where a generation may die, each distinct situation once.

        A situation is a point and the few that came before it, so that the hundredth beat
        which finds nothing new is no new place to die, but the one after an exit is.
        """
        points = self.points[generation]
        seen: Counter[str] = Counter()
        known: set[tuple[str, ...]] = set()
        found = []
        new = not scenario.since
        for index, point in enumerate(points):
            seen[point] += 1
            new = new or point == scenario.since
            situation = tuple(points[max(0, index - scenario.history) : index + 1])
            if new and scenario.only(point) and situation not in known:
                known.add(situation)
                found.append(Kill(point, seen[point]))
        return found


def tell(cells: Cells, scenario: Scenario, *kills: Kill) -> Told:
    """
    Tell the scenario to its end, each worker dying as told, and check how it ended.

    Raises:
        AssertionError: Something that was promised does not hold.
    """
    cell = cells.make()
    scenario.prepare(cell)
    told = Told()
    try:
        for kill in (*kills, None):
            generation = len(told.points)
            died = worker(cell, generation, _main(cell, scenario, generation), kill=kill)
            told.points.append(cell.points(generation))
            told.died += died
            if not died:
                break
        until(lambda: not cell.processes(), "no process of the cell is left")
        assert "fault" not in cell.logs(), cell.logs()
    except AssertionError as error:
        where = ", then ".join(map(str, kills)) or "no kill"
        raise AssertionError(f"{scenario.id}, killed at {where}: {error}") from error
    cells.drop(cell)
    return told


def _main(
    cell: Cell, scenario: Scenario, generation: int
) -> Callable[[Callable[[Watch | None], Listening]], None]:
    def main(listen: Callable[[Watch | None], Listening]) -> None:
        engine = Engine(cell, f"worker-{generation}")
        scenario.tune(engine)
        # A jump of the clock stays, whoever dies.
        if (cell.path / "once-jump").exists():
            engine.later(JUMP_US)

        def watch(point: str, nth: int) -> None:
            if scenario.watch is not None:
                scenario.watch(engine, point, nth)

        def prologue() -> None:
            if generation:
                engine.bury(f"worker-{generation - 1}")
            engine.boot()

        if not scenario.boots:
            prologue()
        with listen(watch):
            if scenario.boots:
                prologue()
            while not _acted(engine, scenario):
                engine.turn()
        verify(engine, scenario)
        engine.close()

    return main


def _acted(engine: Engine, scenario: Scenario) -> bool:
    try:
        return scenario.act(engine)
    except StoreUnavailableError:
        # A person tries again.
        return False


def verify(engine: Engine, scenario: Scenario) -> None:
    """Look at rows, sandboxes and marks; whoever died, all must be as if nobody had."""
    with engine.database.read() as tx:
        assert not (violations := invariants.check(tx)), violations
        assert not (differences := history.verify(tx)), differences
    for key, expected in scenario.expect.items():
        _verify_run(engine, key, expected)
    rows = engine.leases()
    ended = {row["status"] for row in rows}
    assert ended <= scenario.leases, f"leases are {ended}, not {set(scenario.leases)}"
    live = sorted(row["id"] for row in rows if row["status"] not in LEASE_ENDS)
    assert engine.owned() == live, f"sandboxes {engine.owned()}, live leases {live}"


def _verify_run(engine: Engine, key: str, expected: Expected) -> None:
    run = engine.run(key)
    assert run is not None
    ends = {(expected.status, expected.code)} | expected.or_else
    assert (run["status"], run["code"]) in ends, dict(run)
    with engine.database.read() as tx:
        ran = [
            row
            for row in executions.of_run(tx, run["id"])
            if row["status"] != ExecutionStatus.CANCELLED
        ]
        outputs = {
            stream: tuple(
                executions.output(
                    tx, row["id"], stream=stream, offset=0, limit_bytes=64 * 1024 * 1024
                )
                for row in ran
            )
            for stream in ("stdout", "stderr")
        }
    starts = engine.cell.starts(key)
    low, high = expected.starts
    # One that is ended as soon as it was started may not come to its first word.
    same = starts == len(ran) if low else starts <= len(ran)
    assert same, f"{key}: {starts} starts, {len(ran)} executions that ran"
    assert low <= starts <= high, f"{key}: {starts} starts, not {low} to {high}"
    if expected.code != "execution_lost":
        tries = [(row["command_index"], row["attempt"]) for row in ran]
        assert len(tries) == len(set(tries)) or run["infra_attempts"], tries
    for stream, wanted in (("stdout", expected.stdout), ("stderr", expected.stderr)):
        if wanted is not None:
            got = outputs[stream]
            assert got == wanted, f"{key}: {stream} is {_short(got)}, not {_short(wanted)}"


def _short(parts: tuple[bytes, ...]) -> list[str]:
    return [f"{len(part)} bytes, {part[:20]!r}…{part[-20:]!r}" for part in parts]
