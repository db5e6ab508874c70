"""The story of what is over: two runs and what they left are deleted, whoever dies."""

from collections.abc import Callable
from typing import Final

from crash.acts import words
from crash.harness import Engine
from crash.workspace import packed
from leasehold.domain.retention import Retention
from leasehold.maintenance import pruner
from leasehold.store import retention

AT_ONCE: Final = pruner.Limits(key_kept_s=0, fleet_kept_s=0, blob_grace_s=0, spared=1)
_KEYS: Final = ("first", "second")


def pruned(provider: str) -> Callable[[Engine], bool]:
    """Two runs with a tree, output and an artifact; then nothing is to be kept."""

    def act(engine: Engine) -> bool:
        with engine.database.read() as tx:
            begun = retention.of(tx, "default").runs_s == 0
        if not begun:
            if not _worked(engine, provider):
                return False
            with engine.database.write("door.retention") as tx:
                kept = Retention.model_construct(runs_s=0, output_s=0)
                retention.put(tx, "default", kept)
        pruner.run_once(engine.context, limits=AT_ONCE)
        return _nothing_is_left(engine)

    return act


def _worked(engine: Engine, provider: str) -> bool:
    for key in _KEYS:
        tree = packed(engine)
        engine.submit(
            key,
            [["write", "out", key, "then", *words(provider, engine.cell.mark(key))]],
            environment=f"{provider}.ephemeral",
            workspace="/w",
            tree={"digest": tree.digest, "bytes": tree.bytes},
            artifacts=["out"],
        )
        if not (engine.over(key) and engine.quiet()):
            return False
    return True


def _nothing_is_left(engine: Engine) -> bool:
    tables = ("runs", "executions", "output_chunks", "artifacts", "blobs")
    with engine.database.read() as tx:
        left = {name: tx.value(f"SELECT count(*) FROM {name}") for name in tables}
        numbers = [row["number"] for row in tx.all("SELECT number FROM leases")]
        events = tx.value("SELECT count(*) FROM events WHERE run_id IS NOT NULL")
        of_the_last = tx.value("SELECT count(*) FROM events WHERE lease_id IS NOT NULL")
    assert len(numbers) <= 1 or left["runs"], "leases go after their runs"
    objects = [path for path in (engine.cell.path / "store").rglob("*") if path.is_file()]
    if any(left.values()) or len(numbers) != 1:
        return False
    assert not objects, objects
    assert numbers[0] > 1, "the highest number stays"
    assert events <= of_the_last, "only lines that the last lease is replayed by"
    return True
