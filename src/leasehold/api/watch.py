"""
One poller for everybody who watches runs of this process.

SQL is the only truth, so somebody must ask it again and again; but not everybody who watches.
The poller asks for all of them: three statements a turn, whether there is one viewer or five
hundred. It works in a thread of its own, so that neither handlers nor viewers wait for it.

- A viewer holds **one** piece at most. Until it is sent, nothing more is read for that viewer;
  after it, the want that follows is a want like any other, which the next turn looks for. So a
  slow viewer takes no memory, holds nobody up and loses nothing: its place stays its own.
- Who takes no byte for `stuck_s` is let go.
- The keys of viewers are looked at every `check_s`; whose key is not valid any more is let go.
- While output is watched, its runs are asked for quick beats (`follow_until`), all at once.
- A database that is away is asked again, later and later; viewers get their keep-alives
  meanwhile. A fault of ours ends all streams: their viewers come back, with their places.
- The process is to stop: streams end where they are, since clients know how to go on.

The poller lives while there are viewers; without any, nothing is asked.
"""

import asyncio
import contextvars
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from leasehold.api import wants
from leasehold.api.door import Door
from leasehold.api.wants import OutputWant, Piece, Want
from leasehold.errors import FullError, StoreUnavailableError
from leasehold.log import get_logger
from leasehold.provider.budget import boot_time
from leasehold.store import watching
from leasehold.store.database import Tx

log = get_logger(__name__)
_BUSY_S: Final = 0.01
"""Between two turns while there is something to send."""

_AWAY_MAX_S: Final = 5.0
_FOLLOW_US: Final = 10_000_000
_RENEW_S: Final = 4.0
_RETRY_S: Final = 5.0
GONE: Final = ("not_found", "the run is not there any more")
NO_KEY: Final = ("unauthenticated", "the API key is not valid any more")
FAULT: Final = ("internal", "a fault of ours; come back with the id of the last message")
STOPPING: Final = ("stopping", "this server stops; come back with the id of the last message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many watch, and how often what is done for them."""

    viewers: int = 500
    tick_s: float = 0.25
    """Between two turns in which nothing was new: the latency of a stream."""

    keep_alive_s: float = 15.0
    check_s: float = 2.0
    stuck_s: float = 60.0


class Viewer:
    """One open stream: what it wants, and the piece that waits for it."""

    def __init__(self, want: Want, key_id: str) -> None:
        self.want: Want | None = want
        self.key_id = key_id
        self.closed: tuple[str, str] | None = None
        """Code and message, if it was let go."""

        self._piece: Piece | None = None
        self._told = asyncio.Event()

    @property
    def waits(self) -> bool:
        return self.want is not None and self._piece is None and self.closed is None

    def give(self, piece: Piece) -> None:
        self._piece = piece
        self._told.set()

    def close(self, why: tuple[str, str]) -> None:
        self.closed = self.closed or why
        self._told.set()

    async def take(self, *, within_s: float) -> Piece | None:
        """Return the next piece; None: there was none in time, or the viewer was let go."""
        try:
            async with asyncio.timeout(within_s):
                await self._told.wait()
        except TimeoutError:
            return None
        piece, self._piece = self._piece, None
        if piece is not None:
            self.want = piece.following
            if self.closed is None:
                self._told.clear()
        return piece


class Watch:
    """The viewers of a process and their poller; used from its event loop only."""

    def __init__(self, door: Door, pace: Pace) -> None:
        self._door = door
        self.pace = pace
        self._viewers: dict[Viewer, None] = {}
        """Who waited longest comes first."""

        self._poller: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()
        self._followed: dict[str, float] = {}
        self._checked_at = 0.0
        self.stopping = False
        """Set from any thread: all streams end within a turn."""

        self.turns = 0
        self.statements = 0
        """What all turns have asked the database, in all."""

    def __len__(self) -> int:
        """Return how many watch."""
        return len(self._viewers)

    @contextmanager
    def viewing(self, want: Want, *, key_id: str) -> Iterator[Viewer]:
        """
        Have somebody watch until the block ends.

        Raises:
            FullError: As many watch as this process allows.
        """
        if len(self._viewers) >= self.pace.viewers:
            raise FullError(
                f"{len(self._viewers)} streams are open already, as many as this process has"
                f" (LEASEHOLD_API_STREAMS); try again in {_RETRY_S:.0f} s",
                retry_after_s=_RETRY_S,
            )
        viewer = Viewer(want, key_id)
        self._viewers[viewer] = None
        if self._poller is None:
            # Not in the context of the first viewer: its request's id is not ours.
            self._poller = asyncio.create_task(self._poll(), context=contextvars.Context())
        self.nudge()
        try:
            yield viewer
        finally:
            self._viewers.pop(viewer, None)

    def nudge(self) -> None:
        """Look at once: somebody came, or has taken a piece."""
        self._nudged.set()

    async def _poll(self) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix="watch")
        wait_s = 0.0
        try:
            while self._viewers and not self.stopping:
                wait_s = await self._turn(pool, after_s=wait_s)
                await self._rest(wait_s)
            self._close_all(STOPPING)
        except Exception:
            log.exception("watch.fault")
            self._close_all(FAULT)
        finally:
            self._poller = None
            pool.shutdown()

    async def _rest(self, wait_s: float) -> None:
        """Wait; a nudge ends that, but no sooner than the shortest wait."""
        self._nudged.clear()
        await asyncio.sleep(min(wait_s, _BUSY_S))
        try:
            async with asyncio.timeout(max(0.0, wait_s - _BUSY_S)):
                await self._nudged.wait()
        except TimeoutError:
            pass

    async def _turn(self, pool: ThreadPoolExecutor, *, after_s: float) -> float:
        """Look once for all; return how long to wait until the next time."""
        waiting: dict[Want, list[Viewer]] = {}
        for viewer in self._viewers:
            if viewer.waits:
                assert viewer.want is not None
                waiting.setdefault(viewer.want, []).append(viewer)
        keys = self._keys_to_check()
        loop = asyncio.get_running_loop()
        try:
            found, valid, more = await loop.run_in_executor(
                pool, self._look, list(waiting), keys
            )
        except StoreUnavailableError as error:
            wait_s = min(max(after_s, self.pace.tick_s) * 2, _AWAY_MAX_S)
            log.warning("watch.away", why=str(error), again_in_s=wait_s)
            return wait_s
        self.turns += 1
        for viewer in [one for one in self._viewers if keys and one.key_id not in valid]:
            viewer.close(NO_KEY)
        for want, piece in found.items():
            for viewer in waiting[want]:
                self._deliver(viewer, piece)
        return _BUSY_S if found or more else self.pace.tick_s

    def _deliver(self, viewer: Viewer, piece: Piece | None) -> None:
        if piece is None:
            viewer.close(GONE)
        else:
            viewer.give(piece)
        if viewer in self._viewers:
            # Behind those who have got nothing yet.
            self._viewers[viewer] = self._viewers.pop(viewer)

    def _close_all(self, why: tuple[str, str]) -> None:
        for viewer in self._viewers:
            viewer.close(why)

    def _keys_to_check(self) -> list[str]:
        now = boot_time()
        if now - self._checked_at < self.pace.check_s:
            return []
        self._checked_at = now
        return list({viewer.key_id for viewer in self._viewers})

    def _look(
        self, asked: Sequence[Want], keys: Sequence[str]
    ) -> tuple[dict[Want, Piece | None], set[str], bool]:
        """In the poller's thread: ask the database for everybody."""
        self._follow(asked)

        def work(tx: Tx) -> tuple[dict[Want, Piece | None], set[str], bool]:
            valid = watching.valid_keys(tx, keys) if keys else set()
            found, more = wants.look(tx, asked) if asked else ({}, False)
            self.statements += tx.statements
            return found, valid, more

        return self._door.read(work)

    def _follow(self, asked: Sequence[Want]) -> None:
        """Ask for quick beats of the runs whose output is watched."""
        now = boot_time()
        self._followed = {k: at for k, at in self._followed.items() if now - at < _RENEW_S}
        runs = {want.run_id for want in asked if isinstance(want, OutputWant)}
        fresh = sorted(runs - set(self._followed))
        if not fresh:
            return
        self._followed |= dict.fromkeys(fresh, now)

        def work(tx: Tx) -> None:
            watching.follow(tx, fresh, for_us=_FOLLOW_US)
            self.statements += tx.statements

        try:
            self._door.write("follow", work)
        except StoreUnavailableError as error:
            # Where nothing can be written, what there is can still be shown.
            log.warning("watch.follow_failed", why=str(error))
