"""
Follow a run: its output as bytes while it comes, its state on one line, its end.

How new output is noticed is the matter of a door (`by_sql.following`, `by_http.following`);
what is made of it is told here.
"""

import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from leasehold.cli import codes, heeding
from leasehold.cli.output import ProgressLine, duration, short
from leasehold.cli.ports import Follower, Piece, Port, Shape, Sink
from leasehold.domain.lifecycle import LeaseStatus

POLL_S: Final = 0.1
RELEASE_S: Final = 5.0
STREAMS: Final = ("stdout", "stderr")


def to_streams(out: BinaryIO, err: BinaryIO, *, progress: ProgressLine) -> Sink:
    """Return a sink that writes stdout to `out` and stderr to `err`, at once."""

    def write(piece: Piece) -> None:
        # From the first byte on the terminal is the command's: no line of ours between.
        progress.end()
        # stdout is the commands' own: what prepares the workspace is told beside it.
        target = out if piece.stream == "stdout" and not piece.is_setup else err
        target.write(piece.data)
        target.flush()

    return write


def exit_code(run: Shape, last: Shape | None) -> int:
    """Return the run's exit code: the command's, 128+n for a signal, 255 if it has none."""
    if run.get("status") == "succeeded":
        return 0
    if run.get("exit_code") is not None:
        return int(run["exit_code"]) & 0xFF or codes.NO_EXIT_CODE
    ended_by_itself = run.get("code") in {"command_killed", "command_oom"}
    if ended_by_itself and last is not None and last["signal"]:
        return 128 + int(last["signal"])
    return codes.NO_EXIT_CODE


def exit_code_of(follower: Follower) -> int:
    """Return what a command that follows this run exits with."""
    return exit_code(follower.row, follower.last)


def until_end(follower: Follower, *, tick: Callable[[], None], progress: ProgressLine) -> None:
    """Show everything until the run is over and all its output was shown."""
    began = time.monotonic()
    while True:
        with heeding.unbroken():
            tick()
        more = follower.turn()
        if follower.over and not more:
            progress.end()
            return
        if not more:
            progress.show(_line(follower.row, time.monotonic() - began))
            time.sleep(POLL_S)


def until_released(port: Port, run_id: str, *, tick: Callable[[], None]) -> Shape:
    """Wait until the run's lease is given back, for a bounded time; return the last look."""
    until = time.monotonic() + RELEASE_S
    while True:
        with heeding.unbroken():
            tick()
        row = port.runs.debt(run_id)
        owes = row.get("lease_status") in {LeaseStatus.RELEASING, LeaseStatus.ACTIVE}
        if not owes or time.monotonic() >= until:
            return row
        time.sleep(POLL_S / 2)


def say_debt(row: Shape) -> None:
    """Say what a run's lease still owes to its provider."""
    if row.get("lease_status") != LeaseStatus.RELEASING:
        return
    why = f": {row['last_error']}" if row.get("last_error") else ""
    codes.say(
        f"still owed: {row['lease_mode']} of sandbox {row['sandbox_id'] or 'unknown'}"
        f" (lease {row['lease_id']}){why}; it is tried again for as long as a stack runs"
    )


def say_dropped(last: Shape | None) -> None:
    """Say what of the last command's output was above the cap."""
    for stream in STREAMS:
        dropped = last[f"{stream}_dropped"] if last else 0
        if dropped:
            codes.say(f"{dropped} bytes of {stream} above the run's cap were not kept")


def say_pruned(row: Shape) -> None:
    """Say that a run's output and artifacts are not there any more, if so."""
    if row.get("output_pruned_at") is not None:
        codes.say(
            f"retention deleted the output and artifacts of run {row['id']}"
            f" at {row['output_pruned_at']}"
        )


def say_end(row: Shape) -> None:
    """Say how a run ended, unless its command's own exit code says it all."""
    if row["status"] == "succeeded" or row["code"] == "command_failed":
        return
    message = row["message"] or row["code"] or ""
    codes.say(f"run {row['id']} {row['status']}: {message}")


def _line(row: Shape, waited_s: float) -> str:
    what: Any = row.get("step") or row.get("status", "waiting")
    words = [f"run {short(row.get('id'))}", str(row.get("status", "")), str(what)]
    if row.get("end_requested"):
        words.append(f"to end: {row['end_requested']}")
    if row.get("code") and not row.get("finished_at"):
        words.append(f"last trouble: {row['message'] or row['code']}")
    words.append(duration(waited_s))
    return " · ".join(words)
