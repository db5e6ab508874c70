"""
Executions of the `fake` provider: claims, starts and ends as files in a sandbox's box.

Who links the name ``run`` has decided for ever what the execution is: a start, or a tombstone.
So a command is started at most once, and a proof that it never was stays true. What a death
leaves: a claim without ``run``, which the next start takes up and the next settle closes.
"""

import fcntl
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from leasehold.errors import (
    ExecutionUnknownError,
    ProviderError,
    SandboxGoneError,
    UnavailableError,
)
from leasehold.provider import contract as c
from leasehold.provider import fake_files
from leasehold.provider.fake_commands import seen, stamp
from leasehold.provider.fake_world import World, load, publish
from leasehold.seams import effect


def start(
    world: World, box: Path, execution_id: str, command: c.Command, *, fence: int
) -> c.StartOutcome:
    """Start it, or say what became of an earlier call."""
    place = _claim(box, execution_id)
    plan = stamp(command, world.now())
    # Once more: whoever took over since has this execution in hand.
    world.install(box, fence)
    with effect("fake:go"):
        ours = publish(place / "run", plan)
        found = plan if ours else load(place / "run") or {}
        # A part of the start, as the first act of a real command is: whoever started it may
        # have died before this, so who adopts it makes up for that.
        for mark in found.get("marks", ()):
            _leave(Path(mark), execution_id)
        for path, text in found.get("files", ()):
            fake_files.put(box, path, BytesIO(text.encode()), tree=False, mode=0o644)
    if ours:
        return c.StartOutcome.STARTED
    return c.StartOutcome.CANCELLED if found.get("tombstone") else c.StartOutcome.ADOPTED


def _leave(mark: Path, execution_id: str) -> None:
    """Append the execution's line to a mark, once whoever asks."""
    line = f"{execution_id}\n"
    with mark.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if line not in file.readlines():
            file.write(line)


def _claim(box: Path, execution_id: str) -> Path:
    place = box / "x" / execution_id
    with effect("fake:claim"):
        try:
            place.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise SandboxGoneError(f"{box.name} is gone") from None
    return place


def look(world: World, item: c.PollItem, limit: int) -> c.Polled:
    """Answer one item of a poll; its failure is its own."""
    name = item.execution_id
    try:
        place = world.open(item.target.lease.id, item.target.handle) / "x" / name
        run = load(place / "run")
        if run is None:
            if not place.is_dir():
                raise ExecutionUnknownError(f"no execution {name}")
            return c.Polled(execution_id=name, state=c.ExecutionState.STARTING)
        if run.get("tombstone"):
            return c.Polled(execution_id=name, state=c.ExecutionState.UNCLEAR)
        out, err, exit_ = _now(world, place, run)
    except ProviderError as error:
        return c.Polled(execution_id=name, error=error)
    return c.Polled(
        execution_id=name,
        state=c.ExecutionState.RUNNING if exit_ is None else c.ExecutionState.EXITED,
        exit=exit_,
        stdout=out[item.stdout_offset : item.stdout_offset + limit],
        stderr=err[item.stderr_offset : item.stderr_offset + limit],
    )


def end(
    world: World, box: Path, execution_id: str, *, fence: int, cause: c.ExitCause | None
) -> c.Settled:
    """
    Prove how it ended, ending it for this cause.

    Raises:
        UnavailableError: It runs, and no cause was given.
    """
    world.install(box, fence)
    place = _claim(box, execution_id)
    with effect("fake:tombstone"):
        if publish(place / "run", {"tombstone": True}):
            return c.Settled(state=c.SettledState.NEVER_STARTED)
    run = load(place / "run")
    if run is None:
        raise SandboxGoneError(f"{box.name} is gone")
    if run.get("tombstone"):
        return c.Settled(state=c.SettledState.NEVER_STARTED)
    _, _, exit_ = _now(world, place, run)
    if exit_ is None:
        if cause is None:
            raise UnavailableError(f"execution {execution_id} runs")
        exit_ = _end_run(world, place, run, cause)
    return c.Settled(state=c.SettledState.EXITED, exit=exit_)


def end_all(world: World, box: Path) -> None:
    """End what runs in a sandbox: a suspended disk has no processes."""
    for place in (box / "x").iterdir():
        run = load(place / "run")
        if run and not run.get("tombstone"):
            _end_run(world, place, run, c.ExitCause.CANCELLED)


def _end_run(
    world: World, place: Path, run: Mapping[str, Any], cause: c.ExitCause
) -> c.Exit | None:
    """End it now; an end that was there first stands."""
    with effect("fake:end"):
        publish(place / "end", {"at": world.now(), "cause": cause})
    return _now(world, place, run)[2]


def read(
    world: World,
    box: Path,
    execution_id: str,
    stream: c.Stream,
    *,
    offset: int,
    limit: int,
) -> c.Chunk:
    """Return output from an offset on."""
    place = box / "x" / execution_id
    run = load(place / "run")
    if run is None or run.get("tombstone"):
        raise ExecutionUnknownError(f"no output of {execution_id}")
    out, err, exit_ = _now(world, place, run)
    data = out if stream is c.Stream.STDOUT else err
    piece = data[offset : offset + limit]
    after = offset + len(piece)
    return c.Chunk(data=piece, next_offset=after, eof=exit_ is not None and after >= len(data))


def _now(
    world: World, place: Path, run: Mapping[str, Any]
) -> tuple[bytes, bytes, c.Exit | None]:
    return seen(run, load(place / "end"), world.now())
