"""The story of runs that start after another one: let go, or ended, whoever dies meanwhile."""

from collections.abc import Callable

from crash.acts import words
from crash.harness import Engine
from leasehold.domain.after import After, Outcome


def preceded(provider: str) -> Callable[[Engine], bool]:
    """A run, one after its success, one after its failure, and one after whatever that is."""

    def act(engine: Engine) -> bool:
        def start(key: str, *after: After) -> str:
            argv = words(provider, engine.cell.mark(key))
            return engine.submit(key, [argv], environment=f"{provider}.ephemeral", after=after)

        first = start("run")
        start("next", After(run=first))
        never = start("never", After(run=first, outcome=Outcome.FAILED))
        start("last", After(run=never, outcome=Outcome.ANY), After(run=first))
        if not (engine.over("run", "next", "never", "last") and engine.quiet()):
            return False
        for key in ("next", "last"):
            row, before = engine.run(key), engine.run("run")
            assert row is not None
            assert before is not None
            assert row["admitted_at"] >= before["finished_at"]
        with engine.database.read() as tx:
            return not tx.value("SELECT count(*) FROM predecessors WHERE due")

    return act
