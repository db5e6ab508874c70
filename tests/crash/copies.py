"""The story of `leasehold cp`: files go into a retained sandbox, and come out of it again."""

import hashlib
import io
from collections.abc import Callable
from typing import Any

from crash.acts import one_run, words
from crash.harness import Engine
from crash.workspace import packed
from leasehold.domain.lifecycle import LeaseStatus
from leasehold.orchestrator import holding, storing
from leasehold.store import artifacts

L = LeaseStatus
_FILE = b"one file" * 1000
_TREE = {"kept", "changed", "deeper/file"}


def _source(engine: Engine, *, is_file: bool) -> dict[str, Any]:
    if not is_file:
        tree = packed(engine)
        return {"digest": tree.digest, "bytes": tree.bytes, "name": "tree"}
    digest = hashlib.sha256(_FILE).hexdigest()
    storing.keep(engine.context, "default", io.BytesIO(_FILE), digest=digest, size=len(_FILE))
    return {"digest": digest, "bytes": len(_FILE), "name": "file", "is_file": True}


def carries(point: str) -> bool:
    """Return whether a point is one of carrying files; the others are those of any visit."""
    words = ("get", "put", "unpack", "blob", "seize", "record.execute", "record.heartbeat")
    return any(word in point for word in words)


def copied(provider: str, *, is_file: bool = False) -> Callable[[Engine], bool]:
    """
    A failure keeps its sandbox; a person copies into it and out again, and gives it back.

    What is copied in becomes `fresh`, which is not there. Were it looked for again after a
    put, a directory would go into itself.
    """
    fails = one_run(provider, policy="retain_on_failure", command={"code": 3})

    def act(engine: Engine) -> bool:
        fails(engine)
        if not engine.quiet():
            return False
        kept, copy = engine.leases(L.RETAINED), engine.run("copy")
        if copy is None and kept:
            engine.submit(
                "copy",
                [words(provider, engine.cell.mark("copy"))],
                lease_id=kept[0]["id"],
                visit=True,
                copy_in={**_source(engine, is_file=is_file), "to": "fresh"},
                copy_out="fresh",
            )
            return False
        if copy is not None:
            _check(engine, copy["id"], {"fresh"} if is_file else _TREE)
        for lease in kept:
            with engine.database.write("door.give_back") as tx:
                holding.give_back(tx, engine.context, lease["id"], actor="test")
        seen = copy["wanted_lease_id"] if copy else None
        over = [row for row in engine.leases(L.RELEASED) if row["id"] == seen]
        reasons = {row["reason"] for row in over}
        assert reasons <= {"asked by test"}, f"not by the person, but: {reasons}"
        return bool(over)

    return act


def _check(engine: Engine, run_id: str, expected: set[str]) -> None:
    with engine.database.read() as tx:
        rows = artifacts.of_run(tx, run_id)
    assert {(row["kind"], row["path"]) for row in rows} == {
        ("artifact", path) for path in expected
    }
    for row in rows:
        found = io.BytesIO()
        engine.context.blobs.fetch("default", row["sha256"], found)
        assert len(found.getvalue()) == row["bytes"]
