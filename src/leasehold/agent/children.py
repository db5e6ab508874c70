"""
The worker processes of one agent: started, listened to, and started again.

The agent is their parent, so their death is seen at once; what they had claimed is given up
in SQL before a successor is started, with its fences raised. A child that is silent on its
pipe for too long is stuck (its interpreter does not run a thread that only writes a byte) and
is killed: then its death is seen like any other.

Most of a child's start is imports, a second of them. So one *spare* has done that already and
waits for its orders: it takes the place of the next that dies, and another is started once
that one works, so that they do not fight for the processor while work waits. It is
in no row and holds nothing, so its own death costs nothing; if the agent dies, it reads the
end of its orders and exits. One that has fallen silent is left where it is.
"""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from leasehold.agent.child import NUDGE, READY, Orders
from leasehold.errors import StoreUnavailableError
from leasehold.ids import new_id
from leasehold.log import get_logger
from leasehold.maintenance import sessions
from leasehold.provider.budget import boot_time
from leasehold.store.database import Database

log = get_logger(__name__)
STARTING_S: Final = 60.0
"""So long a child may be silent before its first word: imports on a busy machine."""

_SETTLING_S: Final = 5.0
"""So long a worker that does not consume yet has the processor to itself."""

_FRESH_S: Final = 10.0
_DYING_S: Final = 0.01
_SPARE: Final = "spare"
_RESPAWN_S: Final = 0.2
_RESPAWN_MAX_S: Final = 10.0
_GOOD_LIFE_S: Final = 3.0


@dataclass(slots=True)
class Child:
    """One slot, or the spare: the process that fills it now, if there is one."""

    kind: str
    threads: int
    worker_id: str = ""
    process: subprocess.Popen[str] | None = None
    pipe: int = -1
    started_at: float = 0.0
    heard_at: float = 0.0
    has_spoken: bool = False
    is_ready: bool = False
    """It has said that it consumes."""

    wait_s: float = 0.0
    start_again_at: float = 0.0
    owed: list[str] = field(default_factory=list)
    """Dead workers whose claims could not be given up yet."""

    def is_settled(self, now: float) -> bool:
        """Tell whether it works, or has had the time to begin."""
        if self.process is None or not self.has_spoken:
            return False
        return self.is_ready or now - self.started_at > _SETTLING_S


class Children:
    """Keeps every slot filled until it is told to stop."""

    def __init__(
        self,
        database: Database,
        *,
        orders: Callable[[Child], Orders],
        nudge: Callable[[], None],
        silent_s: float,
        spare: bool = False,
    ) -> None:
        self._database = database
        self._orders = orders
        self._nudge = nudge
        self._selector = selectors.DefaultSelector()
        self._slots: list[Child] = []
        self._spare = Child(kind=_SPARE, threads=0) if spare else None
        self._silent_s = silent_s
        self._turned_at = boot_time()
        self._draining = False

    def add(self, kind: str, *, threads: int) -> None:
        self._slots.append(Child(kind=kind, threads=threads))

    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process]

    def turn(self, timeout_s: float) -> None:
        """Listen for a moment; see deaths, fill empty slots, kill the silent."""
        # A pipe is closed a moment before its process can be buried, and an empty slot is
        # filled when its time has come, not half a second later.
        dying = any(slot.process is not None and slot.pipe < 0 for slot in self._slots)
        empty = any(slot.process is None for slot in self._slots)
        wait_s = min(timeout_s, _DYING_S if dying or empty else timeout_s)
        # With no child yet there is nobody to listen to.
        for key, _ in self._selector.select(wait_s if self._selector.get_map() else 0):
            slot: Child = key.data
            self._listen(slot)
        now = boot_time()
        self._excuse(now)
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._bury(slot)
            if slot.owed:
                self._give_up(slot)
            if slot.process is None:
                if not self._draining and not slot.owed and boot_time() >= slot.start_again_at:
                    self._fill(slot)
            else:
                _kill_silent(slot, now, self._silent_s)
        if self._spare is not None:
            self._tend(self._spare, now)

    def _excuse(self, now: float) -> None:
        """Call nobody silent for a time in which we did not listen: stopped, suspended."""
        if now - self._turned_at > self._silent_s / 2:
            for slot in (*self._slots, self._spare):
                if slot is not None:
                    slot.heard_at = now
        self._turned_at = now

    def _tend(self, spare: Child, now: float) -> None:
        """Keep the spare there, once all slots are filled and at work."""
        if spare.process is not None and spare.process.poll() is not None:
            self._forget(spare)
        if spare.process is not None:
            _kill_silent(spare, now, self._silent_s)
        elif (
            not self._draining
            and now >= spare.start_again_at
            and all(slot.is_settled(now) for slot in self._slots)
        ):
            self._start(spare)

    def _listen(self, slot: Child) -> None:
        try:
            words = os.read(slot.pipe, 4096)
        except BlockingIOError:
            return
        slot.heard_at = boot_time()
        slot.has_spoken = slot.has_spoken or bool(words)
        slot.is_ready = slot.is_ready or READY in words
        if NUDGE in words:
            self._nudge()
        if not words:
            self._selector.unregister(slot.pipe)
            os.close(slot.pipe)
            slot.pipe = -1

    def _fill(self, slot: Child) -> None:
        """Give a slot a process, the spare if it is well, and its orders."""
        warm = self._promote(slot)
        if not warm:
            self._start(slot)
        assert slot.process is not None
        assert slot.process.stdin is not None
        slot.worker_id = new_id()
        slot.started_at = slot.heard_at = boot_time()
        try:
            slot.process.stdin.write(self._orders(slot).line())
            slot.process.stdin.close()
        except OSError as error:
            log.warning("worker.stillborn", worker=slot.worker_id, why=str(error))
        pid = slot.process.pid
        log.info("worker.spawned", worker=slot.worker_id, kind=slot.kind, pid=pid, warm=warm)

    def _promote(self, slot: Child) -> bool:
        """Move the spare into a slot; false if there is none, or none that is surely well."""
        spare = self._spare
        if spare is None or spare.process is None or spare.process.poll() is not None:
            return False
        # One that still imports is ahead of any that would be started now.
        if spare.has_spoken and boot_time() - spare.heard_at > _FRESH_S:
            return False
        if spare.pipe < 0:
            return False
        slot.process, slot.pipe = spare.process, spare.pipe
        slot.has_spoken, slot.is_ready = spare.has_spoken, False
        self._selector.modify(slot.pipe, selectors.EVENT_READ, slot)
        spare.process, spare.pipe = None, -1
        return True

    def _start(self, slot: Child) -> None:
        """Start a process without orders: it imports everything, then waits for them."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        slot.process = subprocess.Popen(
            [sys.executable, "-m", "leasehold.agent.child", str(write)],
            stdin=subprocess.PIPE,
            # What is to be read goes to stderr; Celery prints its farewell here.
            stdout=subprocess.DEVNULL,
            pass_fds=(write,),
            start_new_session=True,
            text=True,
        )
        os.close(write)
        slot.pipe = read
        slot.has_spoken = slot.is_ready = False
        slot.started_at = slot.heard_at = boot_time()
        self._selector.register(read, selectors.EVENT_READ, slot)

    def _bury(self, slot: Child) -> None:
        """See a death: what the worker had claimed becomes due at once."""
        assert slot.process is not None
        code = slot.process.returncode
        slot.owed.append(slot.worker_id)
        self._forget(slot)
        log.warning("worker.died", worker=slot.worker_id, kind=slot.kind, code=code)

    def _forget(self, slot: Child) -> None:
        """Empty a slot whose process has ended, and say when it may be filled again."""
        assert slot.process is not None
        if slot.pipe >= 0:
            self._selector.unregister(slot.pipe)
            os.close(slot.pipe)
            slot.pipe = -1
        if slot.process.stdin is not None:
            with suppress(OSError):
                slot.process.stdin.close()
        lived = boot_time() - slot.started_at
        # The first time at once; one that keeps dying young comes back less and less often.
        if lived > _GOOD_LIFE_S:
            slot.wait_s = 0.0
        slot.start_again_at = boot_time() + slot.wait_s
        slot.wait_s = min(max(slot.wait_s * 2, _RESPAWN_S), _RESPAWN_MAX_S)
        slot.process = None

    def _give_up(self, slot: Child) -> None:
        try:
            while slot.owed:
                with self._database.write("worker.gone") as tx:
                    given_up = sessions.worker_gone(tx, slot.owed[0])
                log.info("worker.gone", worker=slot.owed[0], given_up=given_up)
                slot.owed.pop(0)
            self._nudge()
        except StoreUnavailableError as error:
            log.warning("worker.gone_later", why=str(error))
        except Exception:
            log.exception("worker.gone_later")

    def drain(self, *, grace_s: float) -> None:
        """Let every child finish its steps; kill those that take longer than the grace."""
        self._draining = True
        self._dismiss()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send_signal(signal.SIGTERM)
        until = boot_time() + grace_s
        while any(slot.process for slot in self._slots) and boot_time() < until:
            self.turn(0.1)
        self.kill()

    def kill(self) -> None:
        """End every child now; their claims are given up as for any death."""
        self._dismiss()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                self._bury(slot)
            if slot.owed:
                self._give_up(slot)

    def _dismiss(self) -> None:
        """End the spare, which holds nothing."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.process is not None:
            spare.process.kill()
            spare.process.wait()
            self._forget(spare)


def _kill_silent(slot: Child, now: float, silent_s: float) -> None:
    """Kill a process that should have been heard; its death is seen at the next turn."""
    if now - slot.heard_at <= (silent_s if slot.has_spoken else STARTING_S):
        return
    assert slot.process is not None
    log.error("worker.silent", worker=slot.worker_id, kind=slot.kind, pid=slot.process.pid)
    slot.heard_at = now
    slot.process.kill()
