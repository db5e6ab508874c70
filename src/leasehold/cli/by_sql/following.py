"""
Follow a run in SQL: a few short statements every tenth of a second.

Nothing is written but the wish for quick beats (`follow_until`), renewed while somebody looks.
So a follower may come, go and come back anywhere.
"""

import time
from dataclasses import dataclass
from typing import Final

from leasehold.cli.door import Door
from leasehold.cli.following import STREAMS
from leasehold.cli.ports import Piece, Shape, Sink
from leasehold.domain.lifecycle import EXECUTION_ENDS, RUN_ENDS
from leasehold.errors import NotFoundError
from leasehold.store import executions, operator, views
from leasehold.store.database import Row, Tx

_FOLLOW_US: Final = 10_000_000
_RENEW_S: Final = 4.0
_TURN_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class _Position:
    """How far the output of one execution was shown."""

    stdout: int = 0
    stderr: int = 0


class SqlFollower:
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
        self.row: Shape = {}
        self.last: Shape | None = None

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
        run = views.progress(tx, self.run_id)
        if run is None:
            raise NotFoundError(f"there is no run {self.run_id} any more: retention deleted it")
        self.row = run | {"output_pruned_at": views.iso(run["output_pruned_at"])}
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
        for stream in STREAMS:
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

    def close(self) -> None:
        """Nothing is held."""
