"""
The clock's thread: turns when something is due, when nudged, and at least every few seconds.

A fault in one turn is logged and the next turn comes: the rows are still due.
"""

from typing import Final

from leasehold import seams
from leasehold.errors import StoreUnavailableError
from leasehold.log import get_logger
from leasehold.maintenance import clock
from leasehold.maintenance.sessions import Observer
from leasehold.orchestrator.jobs import Context
from leasehold.runtime.courier import Courier

log = get_logger(__name__)
_LEAST_S: Final = 0.01
_FAULT_WAIT_S: Final = 0.5
_FAULT_WAIT_MAX_S: Final = 5.0


class Ticker:
    """Runs `clock.run_once` and the session observer until it is stopped."""

    def __init__(
        self,
        context: Context,
        *,
        batch: int,
        session_id: str | None,
        courier: Courier | None = None,
    ) -> None:
        """`courier` is started, stopped, and told when webhooks are owed something."""
        self._context = context
        self._batch = batch
        self._session_id = session_id
        self._courier = courier
        self._wake = seams.flag()
        self._stop = seams.flag()
        self._observer = Observer()
        self._thread = seams.thread(self._loop, name="clock")

    def start(self) -> None:
        self._thread.start()
        if self._courier is not None:
            self._courier.start()

    def nudge(self) -> None:
        """Something became due, or free: turn now."""
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10)
        if self._courier is not None:
            self._courier.stop()

    def _loop(self) -> None:
        fault_wait = _FAULT_WAIT_S
        while not self._stop.is_set():
            self._wake.clear()
            try:
                sleep = self._turn()
                fault_wait = _FAULT_WAIT_S
            except StoreUnavailableError as error:
                log.warning("clock.database_away", why=str(error))
                sleep = fault_wait = min(fault_wait * 2, _FAULT_WAIT_MAX_S)
            except Exception:
                log.exception("clock.fault")
                sleep = fault_wait = min(fault_wait * 2, _FAULT_WAIT_MAX_S)
            # Nudges that come together are one turn.
            self._stop.wait(_LEAST_S)
            self._wake.wait(sleep)

    def _turn(self) -> float:
        report = clock.run_once(
            self._context, batch=self._batch, observer=self._observer, own=self._session_id
        )
        if report.sent or report.admitted or report.ended:
            log.debug("clock.turn", sent=report.sent, admitted=report.admitted)
        if report.letters and self._courier is not None:
            self._courier.wake()
        timers = self._context.timers
        # An observer whose reads are further apart than the gap would begin anew each time.
        observe_every = min(timers.beat_every, timers.observe_gap * 2 / 3).total_seconds()
        # Many clocks must not all wake at the same microsecond for the same row.
        jitter = self._context.rng.random() * 0.002
        return min(report.next_in_s, observe_every) + jitter
