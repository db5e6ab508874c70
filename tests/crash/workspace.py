"""The story of a run with a workspace: a tree, a set-up command, two commands, artifacts."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from crash.acts import words
from crash.harness import Engine
from leasehold.orchestrator import storing
from leasehold.store import artifacts
from leasehold.trees.packing import Packed, pack
from leasehold.trees.reading import Limits

_FILES = {"kept": "1", "changed": "1", "deeper/file": "x" * 100_000}
_LEFT = {
    ("artifact", "out/report"),
    ("changed", "changed"),
    ("changed", "out/report"),
    ("deleted", "deeper/file"),
}


def packed(engine: Engine) -> Packed:
    """Pack the workspace of a cell into its store, again and again the same."""
    root = engine.cell.path / "workspace"
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        found = pack(root, spool, Limits(files=10, bytes=10**6))
        storing.keep(engine.context, "default", spool, digest=found.digest, size=found.bytes)
    return found


def _writing(provider: str, mark: Path, files: dict[str, str]) -> list[str]:
    argv = words(provider, mark)
    if provider == "fake":
        writes = [["write", name, text, "then"] for name, text in files.items()]
        return [*(word for phrase in writes for word in phrase), *argv]
    body = "".join(
        f"mkdir -p $(dirname {name}); echo {text} >{name}; " if text else f"rm {name}; "
        for name, text in files.items()
    )
    return [*argv[:2], body + argv[2], *argv[3:]]


def with_workspace(provider: str) -> Callable[[Engine], bool]:
    """Prepare, work twice, leave something; each start is marked once."""

    def act(engine: Engine) -> bool:
        mark = engine.cell.mark("run")
        second = {"out/report": "done"}
        if provider != "fake":
            second["deeper/file"] = ""
        tree = packed(engine)
        engine.submit(
            "run",
            [
                _writing(provider, mark, {"changed": "2"}),
                _writing(provider, mark, second),
            ],
            environment=f"{provider}.ephemeral",
            workspace="/w",
            tree={"digest": tree.digest, "bytes": tree.bytes},
            setup={"argv": words(provider, mark)},
            artifacts=["out/*"],
            sync_back=True,
        )
        if not (engine.over("run") and engine.quiet()):
            return False
        _check(engine, provider)
        return True

    return act


def _check(engine: Engine, provider: str) -> None:
    run = engine.run("run")
    assert run is not None
    with engine.database.read() as tx:
        rows = artifacts.of_run(tx, run["id"])
    expected = _LEFT - ({("deleted", "deeper/file")} if provider == "fake" else set())
    found = {(row["kind"], row["path"]) for row in rows}
    if run["infra_attempts"]:
        # The second command ran in a sandbox of its own, without what the first had done.
        expected, found = {("artifact", "out/report")}, found & {("artifact", "out/report")}
    assert found == expected, rows
    assert run["artifacts_error"] is None
    for row in rows:
        if row["sha256"] is not None:
            with tempfile.TemporaryFile() as file:
                spool = cast("BinaryIO", file)
                size = engine.context.blobs.fetch("default", row["sha256"], spool)
            assert size == row["bytes"]
