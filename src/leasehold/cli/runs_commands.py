"""``leasehold runs``: what was run, what runs, and what comes out of it."""

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import artifacts_command, codes, command_lines
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, Limit, RunId, pairs
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.output import ProgressLine
    from leasehold.cli.ports import Follower, Port, Shape

group = typer.Typer(no_args_is_help=True, help="What was run, and what runs.")


def add_to(app: typer.Typer) -> None:
    artifacts_command.add_to(group)
    app.add_typer(group, name="runs")


@group.command("list")
def list_(
    *,
    status: Annotated[
        list[str] | None, typer.Option(help="Only these statuses; repeat it.")
    ] = None,
    env: Annotated[str | None, typer.Option(help="Only of this environment.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.lifecycle import RunStatus

    known = [member.value for member in RunStatus]
    for name in status or ():
        if name not in known:
            raise BadInputError(
                f"--status: there is no {name!r}; there are: {', '.join(known)}"
            )
    labels = pairs(label, option="--label")
    with enter() as door:
        shapes = door.runs.list(
            statuses=status or (), environment=env, labels=labels, limit=limit
        )
        now_us = door.now_us() if shapes and not as_json else 0
    if as_json:
        output.emit(shapes)
        return
    output.table(
        ("ID", "STATUS", "STEP", "EXIT", "CODE", "ENV", "AGE", "COMMAND"),
        [
            (
                output.short(s["id"]),
                s["status"],
                s["step"],
                s["exit_code"],
                s["code"],
                s["environment"],
                output.age(s["created_at"], now_us=now_us),
                command_lines.summary(s["commands"], width=60),
            )
            for s in shapes
        ],
        empty="no such runs" if status or env or labels else "no runs yet",
    )


@group.command()
def show(run: RunId, *, as_json: AsJson = False) -> None:
    """Show one run with its executions and its history."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.runs.show(door.resolve("run", run))
    if as_json:
        output.emit(shape)
        return
    _print(shape)


def _print(shape: "Shape") -> None:
    from leasehold.cli import output

    events, executions = shape.pop("events"), shape.pop("executions")
    commands, after = shape.pop("commands"), shape.pop("after")
    progress = shape.pop("progress")
    if shape["result"] is not None:
        shape["result"] = json.dumps(shape["result"], ensure_ascii=False)
    output.facts(shape.items())
    output.facts(("after", f"{a['run']} {a['outcome']} (is {a['status']})") for a in after)
    if progress is not None:
        output.facts([("progress", _progress_words(progress))])
    output.facts((f"command {i}", " ".join(c["argv"])) for i, c in enumerate(commands))
    for item in executions:
        output.facts([(f"start {item['number']}", _start_words(item))])
    for event in events:
        data = " ".join(f"{k}={v}" for k, v in event["data"].items() if k != "execution")
        sys.stdout.write(f"{event['at']}  {event['name']:<24} {output.clean(data)[:120]}\n")


def _progress_words(progress: "Shape") -> str:
    """Say what a command has said of itself last, and when it was heard."""
    percent, message = progress["percent"], progress["message"]
    words = [f"{percent:g}%"] if percent is not None else []
    return " ".join([*words, message or "", f"(heard at {progress['heard_at']})"]).strip()


def _start_words(item: "Shape") -> str:
    """Say what became of one start of one command."""
    words = [f"command {item['command']}, attempt {item['attempt']}: {item['status']}"]
    if item["signal"] is not None:
        words.append(f"signal {item['signal']}")
    elif item["exit_code"] is not None:
        words.append(f"exit code {item['exit_code']}")
    elif item["cause"]:
        words.append(item["cause"])
    words.append(f"from {item['started_at'] or '-'} to {item['ended_at'] or '-'}")
    if dropped := item["stdout_dropped"] + item["stderr_dropped"]:
        words.append(f"{dropped} bytes above the cap were dropped")
    return ", ".join(words)


@group.command()
def logs(
    run: RunId,
    *,
    command: Annotated[
        int | None,
        typer.Option(min=0, help="Only of this one of its commands; the first is 0."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="An array of pieces: execution, command, stream, offset, text."
        ),
    ] = False,
) -> None:
    """Write a run's stored output: its stdout to stdout, its stderr to stderr."""
    from leasehold.cli import following, output
    from leasehold.cli.entering import enter

    with enter() as door:
        run_id = door.resolve("run", run)
        if command is not None:
            _check_command(door, run_id, command)
        if as_json:
            _pieces(door, run_id, follow=follow, command=command)
            return
        sys.stdout.flush()
        progress = output.ProgressLine()
        sink = following.to_streams(sys.stdout.buffer, sys.stderr.buffer, progress=progress)
        follower = door.runs.follower(run_id, sink=sink, live=follow, command=command)
        with closing(follower):
            _copy(follower, progress, follow=follow)
        following.say_pruned(follower.row)


def _copy(follower: "Follower", progress: "ProgressLine", *, follow: bool) -> None:
    from leasehold.cli import following

    if follow:
        following.until_end(follower, tick=lambda: None, progress=progress)
        return
    while follower.turn():
        continue


def _check_command(door: "Port", run_id: str, command: int) -> None:
    count = len(door.runs.show(run_id)["commands"])
    if command >= count:
        raise BadInputError(
            f"--command: run {run_id} has {count}, numbered from 0; got {command}",
            field="--command",
        )


def _pieces(door: "Port", run_id: str, *, follow: bool, command: int | None) -> None:
    """Write output as one JSON array while it comes: text, or base64 if it is not UTF-8."""
    import base64
    import json

    from leasehold.cli.output import ProgressLine
    from leasehold.cli.ports import Piece

    between = "["

    def item(piece: Piece) -> None:
        nonlocal between
        shape = {
            "execution": piece.execution,
            "command": piece.command,
            "stream": piece.stream,
            "offset": piece.offset,
        }
        try:
            shape["text"] = piece.data.decode()
        except UnicodeDecodeError:
            shape["base64"] = base64.b64encode(piece.data).decode()
        sys.stdout.write(between + json.dumps(shape, ensure_ascii=False))
        sys.stdout.flush()
        between = ",\n"

    follower = door.runs.follower(run_id, sink=item, live=follow, command=command)
    with closing(follower):
        _copy(follower, ProgressLine(), follow=follow)
    sys.stdout.write("[]\n" if between == "[" else "]\n")


@group.command()
def cancel(
    runs: Annotated[list[str], typer.Argument(metavar="ID...")], *, as_json: AsJson = False
) -> None:
    """Ask runs to end; each is cancelled once nothing of it runs any more."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.lifecycle import RUN_ENDS

    shapes = []
    with enter() as door:
        for run_id in [door.resolve("run", run) for run in runs]:
            row = door.runs.cancel(run_id)
            shapes.append(row)
            if as_json:
                continue
            if row["status"] in RUN_ENDS:
                say(f"run {run_id} is {row['status']}")
            elif door.is_served():
                say(f"run {run_id} is to end ({row['end_requested']})")
            else:
                say(f"run {run_id} will be ended by the next `leasehold up` of this home")
    if as_json:
        output.emit(shapes[0] if len(shapes) == 1 else shapes)


@group.command()
def retry(
    run: RunId,
    *,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key is the same new run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit an ended run anew, as a new run that names the old one."""
    from leasehold.cli import entering, output
    from leasehold.ids import new_id

    way = entering.way()
    with way.open() as door:
        run_id = door.resolve("run", run)
        way.need_stack("a retry")
        shape = door.runs.retry(run_id, key=key or f"cli-{new_id()}")
    if as_json:
        output.emit(shape)
    else:
        typer.echo(shape["id"])


@group.command()
def resume(run: RunId, *, as_json: AsJson = False) -> None:
    """Send a parked run back to the queue, its infrastructure failures forgiven."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        run_id = door.resolve("run", run)
        shape = door.runs.resume(run_id)
    if as_json:
        output.emit(shape)
    else:
        say(f"run {run_id} is {shape['status']}")


@group.command()
def extend(
    run: RunId,
    *,
    deadline: Annotated[
        str | None, typer.Option(help="The run's new deadline, from now on: 2h, 3d.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Of each command that is started from now on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a live run more time; a command that runs keeps the timeout that it has."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.specs import parse
    from leasehold.orchestrator import extending

    asked = {"deadline_s": deadline, "timeout_s": timeout}
    given = {name: value for name, value in asked.items() if value is not None}
    more = parse(extending.ExtendSpec, given)
    with enter() as door:
        run_id = door.resolve("run", run)
        shape = door.runs.extend(run_id, more)
    if as_json:
        output.emit(shape)
    else:
        say(f"run {run_id} has until {shape['deadline_at']}")


@group.command(epilog=codes.EPILOG)
def wait(
    run: RunId,
    *,
    timeout: Annotated[str | None, typer.Option(help="Give up waiting after this.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a run's end and its release; exit with the run's exit code."""
    import time

    from leasehold.cli import following, output, probing
    from leasehold.cli.entering import enter

    with enter() as door:
        run_id = door.resolve("run", run)
        limit = probing.seconds(timeout, option="--timeout") if timeout else None
        follower = door.runs.follower(run_id, sink=None)
        began = time.monotonic()

        def tick() -> None:
            if limit is not None and time.monotonic() - began > limit:
                raise TimeoutError

        try:
            following.until_end(follower, tick=tick, progress=output.ProgressLine())
        except TimeoutError:
            say(f"run {run_id} is still {follower.row.get('status')} after {timeout}")
            raise typer.Exit(codes.GAVE_UP) from None
        following.say_debt(following.until_released(door, run_id, tick=lambda: None))
        if as_json:
            output.emit(door.runs.show(run_id))
        else:
            following.say_end(follower.row)
    raise typer.Exit(following.exit_code_of(follower))
