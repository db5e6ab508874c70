"""
Follow a run over HTTP: its output from a stream, its state from a look now and then.

The stream is read in a thread, since a read cannot be left and taken up again: Ctrl-C would
cost what was under way. What it brought and nobody has written yet waits in a short queue, and
stays there when the write is interrupted. The thread ends with its process.
"""

import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from leasehold import seams
from leasehold.cli.following import STREAMS
from leasehold.cli.ports import Piece, Shape, Sink
from leasehold.client.following import PAGE_BYTES, Chunk
from leasehold.domain.lifecycle import RUN_ENDS
from leasehold.ids import RunId, execution_id

if TYPE_CHECKING:
    from leasehold.client import Client, Run

_LOOK_S: Final = 0.5
_FIRST_S: Final = 0.1
_TAKE_S: Final = 0.05
_AHEAD: Final = 64


class HttpFollower:
    """One look after the other at one run; `turn` returns False when all was shown."""

    def __init__(
        self,
        client: "Client",
        run_id: str,
        *,
        sink: Sink | None,
        live: bool = True,
        command: int | None = None,
    ) -> None:
        self._client, self.run_id = client, run_id
        self._sink, self._live, self._command = sink, live, command
        self._reader = _Reader(client, run_id) if live and sink is not None else None
        self._next: Chunk | None = None
        self._look_at = 0.0
        self._pause_s = _FIRST_S
        self.row: Shape = {}
        self.last: Shape | None = None

    @property
    def over(self) -> bool:
        return bool(self.row) and self.row["status"] in RUN_ENDS and self._all_shown

    @property
    def _all_shown(self) -> bool:
        return self._sink is None or self._reader is None or self._reader.over

    def turn(self) -> bool:
        """Show a piece that has come, or else look at the run."""
        if self._reader is None:
            if self._live and self.row and time.monotonic() < self._look_at:
                return False
            run = self._look()
            if self._sink is not None:
                for chunk in self._stored(run):
                    self._show(chunk)
            return False
        if self._sink is not None:
            self._next = self._next or self._reader.take()
            if self._next is not None:
                self._show(self._next)
                # After the write: interrupted before it, it is shown by the next turn.
                self._next = None
                return True
        if time.monotonic() >= self._look_at or self._reader.over:
            self._look()
        return False

    def _show(self, chunk: Chunk) -> None:
        if self._command not in {None, chunk.command} or self._sink is None:
            return
        name = execution_id(RunId(self.run_id), command=chunk.command, number=chunk.start)
        self._sink(Piece(name, chunk.command, chunk.stream, chunk.offset, chunk.data))

    def _look(self) -> "Run":
        run = self._client.runs.get(self.run_id)
        self.row = dict(run.raw)
        starts = self.row["executions"]
        self.last = starts[-1] if starts else None
        # A look is a request: the longer it takes, the rarer.
        self._look_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 1.5, _LOOK_S)
        return run

    def _stored(self, run: "Run") -> Iterator[Chunk]:
        """Yield what is stored now, start by start."""
        if self.row["output_pruned_at"] is not None:
            return
        for start in run.executions:
            if self._command not in {None, start.command}:
                continue
            for stream in STREAMS:
                stored = start.stdout_bytes if stream == "stdout" else start.stderr_bytes
                if stored:
                    yield from run.pages(stream, start, limit=PAGE_BYTES)

    def stop_showing(self) -> None:
        """Show nothing any more; only the end is waited for."""
        self._sink = None
        if self._reader is not None:
            self._reader.stop()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.stop()


class _Reader:
    """Reads a run's stream ahead of who shows it."""

    def __init__(self, client: "Client", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._come: queue.Queue[Chunk | Exception | None] = queue.Queue(_AHEAD)
        self._stopped = seams.flag()
        self.over = False
        """All that there will ever be was taken."""

        seams.thread(self._read, name="follow").start()

    def take(self) -> Chunk | None:
        """
        Return what has come next, after a short wait for it.

        Raises:
            LeaseholdError: The stream cannot be read any more.
        """
        try:
            found = None if self.over else self._come.get(timeout=_TAKE_S)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        if found is None:
            self.over = True
        return found

    def stop(self) -> None:
        self._stopped.set()

    def _read(self) -> None:
        try:
            for chunk in self._client.runs.follow(self._run_id):
                if not self._put(chunk):
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001  raised by who takes it
            self._put(error)

    def _put(self, item: Chunk | Exception | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._come.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False
