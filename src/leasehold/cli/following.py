"""
Follow a run: its output as bytes while it comes, its state on one line, its end.

Only SQL is read, a few short statements every tenth of a second, so a follower may come, go and
come back anywhere. It asks for quick beats by `follow_until`, renewed while it looks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

from leasehold.cli import codes, heeding
from leasehold.cli.door import Door
from leasehold.cli.output import ProgressLine, duration, short
from leasehold.domain.lifecycle import EXECUTION_ENDS, RUN_ENDS, LeaseStatus
from leasehold.domain.specs import SETUP
from leasehold.errors import NotFoundError
from leasehold.store import executions, operator, views
from leasehold.store.database import Row, Tx

POLL_S: Final = 0.1
RELEASE_S: Final = 5.0
_FOLLOW_US: Final = 10_000_000
_RENEW_S: Final = 4.0
_TURN_BYTES: Final = 4 * 1024 * 1024
_STREAMS: Final = ("stdout", "stderr")


@dataclass(slots=True)
class _Position:
    """How far the output of one execution was shown."""

    stdout: int = 0
    stderr: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """New output of one execution, at its byte offset."""

    execution: str
    command: int
    stream: str
    offset: int
    data: bytes

    @property
    def is_setup(self) -> bool:
        return self.command == SETUP


Sink: TypeAlias = Callable[[Piece], None]


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


class Follower:
    """One look after the other at one run; `turn` returns False when all was shown."""

    def __init__(
        self,
        door: Door,
        run_id: str,
        *,
        sink: Sink | None,
        live: bool = True,
        command: int | None = None,
    ) -> None:
        self._door, self.run_id = door, run_id
        self._command = command
        self._sink = sink
        self._live = live
        self._first = 0
        self._positions: dict[str, _Position] = {}
        self._renewed_at = 0.0
        self.row: Row = {}
        self.last: Row | None = None
        """The execution that came last."""

    @property
    def over(self) -> bool:
        return bool(self.row) and self.row["status"] in RUN_ENDS

    def turn(self) -> bool:
        """Look once and show what is new; True if there was something."""
        self._renew()
        pieces, first = self._door.read(self._look)
        for piece in pieces:
            if self._sink is not None:
                self._sink(piece)
            # After the write: interrupted before it, the piece is shown by the next turn.
            position = self._positions.setdefault(piece.execution, _Position())
            setattr(position, piece.stream, piece.offset + len(piece.data))
        self._first = first
        return bool(pieces)

    def _renew(self) -> None:
        now = time.monotonic()
        if not self._live or self.over or now - self._renewed_at < _RENEW_S:
            return
        self._renewed_at = now
        self._door.write(
            "follow", lambda tx: operator.follow(tx, self.run_id, for_us=_FOLLOW_US)
        )

    def _look(self, tx: Tx) -> tuple[list[Piece], int]:
        """Return new output, and the number of the execution to begin with next time."""
        # The run first: what is stored later than its end is not there.
        row = views.progress(tx, self.run_id)
        if row is None:
            raise NotFoundError(f"there is no run {self.run_id} any more: retention deleted it")
        self.row = row
        pieces: list[Piece] = []
        first = self._first
        for row in views.executions_from(tx, self.run_id, number=first):
            self.last = row
            shown = self._command in {None, row["command_index"]}
            behind = shown and self._read(tx, row, pieces)
            if row["status"] not in EXECUTION_ENDS or behind:
                break
            first = row["number"] + 1
        return pieces, first

    def _read(self, tx: Tx, row: Row, pieces: list[Piece]) -> bool:
        """Collect new output of one execution; True if more is stored than was read."""
        position = self._positions.get(row["id"], _Position())
        behind = False
        for stream in _STREAMS:
            offset, stored = getattr(position, stream), row[f"{stream}_offset"]
            if self._sink is None or offset >= stored:
                continue
            data = executions.output(
                tx, row["id"], stream=stream, offset=offset, limit_bytes=_TURN_BYTES
            )[: stored - offset]
            if data:  # else retention has pruned it
                pieces.append(Piece(row["id"], row["command_index"], stream, offset, data))
                behind = behind or offset + len(data) < stored
        return behind

    def stop_showing(self) -> None:
        """Show nothing any more; only the end is waited for."""
        self._sink = None

    def exit_code(self) -> int:
        """Return what a command that follows this run exits with."""
        return exit_code(self.row, self.last)


def exit_code(run: Row, last: Row | None) -> int:
    """Return the run's exit code: the command's, 128+n for a signal, 255 if it has none."""
    if run.get("status") == "succeeded":
        return 0
    if run.get("exit_code") is not None:
        return int(run["exit_code"]) & 0xFF or codes.NO_EXIT_CODE
    ended_by_itself = run.get("code") in {"command_killed", "command_oom"}
    if ended_by_itself and last is not None and last["signal"]:
        return 128 + int(last["signal"])
    return codes.NO_EXIT_CODE


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


def until_released(door: Door, run_id: str, *, tick: Callable[[], None]) -> Row:
    """Wait until the run's lease is given back, for a bounded time; return the last look."""
    until = time.monotonic() + RELEASE_S
    while True:
        with heeding.unbroken():
            tick()
        row = door.read(lambda tx: views.progress(tx, run_id)) or {}
        owes = row.get("lease_status") in {LeaseStatus.RELEASING, LeaseStatus.ACTIVE}
        if not owes or time.monotonic() >= until:
            return row
        time.sleep(POLL_S / 2)


def say_debt(row: Row) -> None:
    """Say what a run's lease still owes to its provider."""
    if row.get("lease_status") != LeaseStatus.RELEASING:
        return
    why = f": {row['last_error']}" if row.get("last_error") else ""
    codes.say(
        f"still owed: {row['lease_mode']} of sandbox {row['sandbox_id'] or 'unknown'}"
        f" (lease {row['lease_id']}){why}; it is tried again for as long as a stack runs"
    )


def say_dropped(last: Row | None) -> None:
    """Say what of the last command's output was above the cap."""
    for stream in _STREAMS:
        dropped = last[f"{stream}_dropped"] if last else 0
        if dropped:
            codes.say(f"{dropped} bytes of {stream} above the run's cap were not kept")


def say_pruned(row: Row) -> None:
    """Say that a run's output and artifacts are not there any more, if so."""
    if row.get("output_pruned_at") is not None:
        when = views.iso(row["output_pruned_at"])
        codes.say(f"retention deleted the output and artifacts of run {row['id']} at {when}")


def say_end(row: Row) -> None:
    """Say how a run ended, unless its command's own exit code says it all."""
    if row["status"] == "succeeded" or row["code"] == "command_failed":
        return
    message = row["message"] or row["code"] or ""
    codes.say(f"run {row['id']} {row['status']}: {message}")


def _line(row: Row, waited_s: float) -> str:
    what: Any = row.get("step") or row.get("status", "waiting")
    words = [f"run {short(row.get('id'))}", str(row.get("status", "")), str(what)]
    if row.get("end_requested"):
        words.append(f"to end: {row['end_requested']}")
    if row.get("code") and not row.get("finished_at"):
        words.append(f"last trouble: {row['message'] or row['code']}")
    words.append(duration(waited_s))
    return " · ".join(words)
