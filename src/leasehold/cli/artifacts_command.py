"""``leasehold runs artifacts``: what a run left in the store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, RunId
from leasehold.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.cli.ports import Port, Shape


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
    if all_ and output is None:
        raise BadInputError("--all: say where, with -o DIR")
    way = entering.way()
    with way.open() as port:
        run_id = port.resolve("run", run)
        shape, found = port.runs.show(run_id), port.runs.artifacts(run_id)
        say_pruned(shape)
        if get is not None:
            _write_one(port, run_id, found, get, output)
        elif all_:
            assert output is not None
            _write_all(port, run_id, found, output)
        elif sync_back is not None:
            if port.bring_home(run_id, sync_back):
                raise typer.Exit(codes.CONFLICT)
        else:
            _list(shape, found, as_json=as_json)


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


def _write_one(
    port: "Port", run_id: str, lines: "Sequence[Shape]", path: str, target: Path | None
) -> None:
    there = {line["path"]: line for line in lines if line["sha256"] is not None}
    if path not in there:
        some = ", ".join(sorted(there)[:5]) or "none"
        raise NotFoundError(f"the run left no {path!r}; there are: {some}")
    if target is None:
        sys.stdout.flush()
        port.runs.fetch(run_id, there[path], sys.stdout.buffer)
    else:
        _write_out(port, run_id, there[path], target.parent, target.name)


def _write_all(port: "Port", run_id: str, lines: "Sequence[Shape]", target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    kept = [line for line in lines if line["kind"] == "artifact"]
    for line in kept:
        _write_out(port, run_id, line, target, line["path"])
    say(f"{len(kept)} artifacts are in {target}")


def _write_out(port: "Port", run_id: str, line: "Shape", root: Path, path: str) -> None:
    from leasehold.trees import homing

    asked = {**line, "mode": int(line["mode"], 8)}
    try:
        homing.write_out(
            root, path, asked, lambda _digest, file: port.runs.fetch(run_id, line, file)
        )
    except OSError as error:
        raise BadInputError(f"--output: {error.strerror}: {error.filename}") from None
