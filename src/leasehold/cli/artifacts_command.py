"""``leasehold runs artifacts``: what a run left in the store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, RunId
from leasehold.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.cli.door import Door
    from leasehold.cli.ports import Shape
    from leasehold.store.database import Row


def add_to(group: typer.Typer) -> None:
    group.command("artifacts")(artifacts)


def artifacts(
    run: RunId,
    *,
    get: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write this one to stdout, or to --output."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Write all of them below -o.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; with --all, a directory.")
    ] = None,
    sync_back: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Apply what the run changed in its workspace."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what a run left: its artifacts, and what it changed in its workspace."""
    from leasehold.cli import entering
    from leasehold.cli.following import say_pruned

    if sum((get is not None, all_, sync_back is not None)) > 1:
        raise BadInputError("--get, --all and --sync-back: give one of them")
    way = entering.way()
    if get is not None or all_ or sync_back is not None:
        way.need_files("runs artifacts")
        _bytes(run, get, output, sync_back)
        return
    with way.open() as port:
        run_id = port.resolve("run", run)
        shape, found = port.runs.show(run_id), port.runs.artifacts(run_id)
    say_pruned(shape)
    _list(shape, found, as_json=as_json)


def _bytes(run: str, get: str | None, output: Path | None, sync_back: Path | None) -> None:
    """Write files, or apply them: from the store that this machine can reach."""
    from leasehold.cli.carrying import bring_home
    from leasehold.cli.door import enter
    from leasehold.cli.following import say_pruned
    from leasehold.store.views import iso

    with enter() as door:
        run_id = door.resolve("run", run)
        row, lines = _read(door, run_id)
        say_pruned(row | {"output_pruned_at": iso(row["output_pruned_at"])})
        if get is not None:
            _write_one(door, lines, get, output)
        elif sync_back is None:
            _write_all(door, lines, output)
        else:
            changes = [line for line in lines if line["kind"] in {"changed", "deleted"}]
            if bring_home(door.settings, sync_back, changes):
                raise typer.Exit(codes.CONFLICT)


def _read(door: "Door", run_id: str) -> "tuple[Row, list[Row]]":
    from leasehold.store import artifacts as stored
    from leasehold.store import views

    def work(tx: Any) -> "tuple[Row, list[Row]]":
        row = views.run_row(tx, run_id)
        if row is None:
            raise NotFoundError(f"there is no run {run_id} any more: retention deleted it")
        return row, stored.of_run(tx, run_id)

    return door.read(work)


def _list(row: "Shape", lines: "Sequence[Shape]", *, as_json: bool) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(lines)
    else:
        output.table(
            ("KIND", "PATH", "BYTES", "SHA256", "NOTE"),
            [
                (
                    line["kind"],
                    output.clean(line["path"]),
                    line["bytes"],
                    (line["sha256"] or "")[:12],
                    line["reason"] or (f"-> {line['link']}" if line["link"] else ""),
                )
                for line in lines
            ],
            empty="this run left nothing",
        )
    if row["artifacts_error"]:
        say(f"not all was kept: {row['artifacts_error']}")


def _write_one(door: "Door", lines: "list[Row]", path: str, target: Path | None) -> None:
    from leasehold.blobs import Blobs

    there = {line["path"]: line for line in lines if line["sha256"] is not None}
    if path not in there:
        some = ", ".join(sorted(there)[:5]) or "none"
        raise NotFoundError(f"the run left no {path!r}; there are: {some}")
    blobs = Blobs(door.settings.store_address)
    if target is None:
        sys.stdout.flush()
        blobs.fetch(door.tenant, there[path]["sha256"], sys.stdout.buffer)
        return
    from leasehold.trees import homing

    _put(
        lambda: homing.write_out(
            target.parent,
            target.name,
            there[path],
            lambda digest, file: blobs.fetch(door.tenant, digest, file),
        )
    )


def _write_all(door: "Door", lines: "list[Row]", target: Path | None) -> None:
    from leasehold.blobs import Blobs
    from leasehold.trees import homing

    if target is None:
        raise BadInputError("--all: say where, with -o DIR")
    target.mkdir(parents=True, exist_ok=True)
    blobs = Blobs(door.settings.store_address)
    kept = [line for line in lines if line["kind"] == "artifact"]
    for line in kept:
        _put(
            lambda line=line: homing.write_out(
                target,
                line["path"],
                line,
                lambda digest, file: blobs.fetch(door.tenant, digest, file),
            )
        )
    say(f"{len(kept)} artifacts are in {target}")


def _put(write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise BadInputError(f"--output: {error.strerror}: {error.filename}") from None
