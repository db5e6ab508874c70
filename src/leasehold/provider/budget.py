"""How long a call may still take, and whether anybody still wants it."""

import threading
from collections.abc import Callable
from datetime import timedelta

from leasehold.errors import DeadlineExceededError, InterruptedCallError
from leasehold.seams import boot_time

__all__ = ["Budget", "boot_time"]

_SLICE_S = 0.05


class Budget:
    """
    Time left for a call, and a question: is the run to end, or the session lost?

    A provider calls `check` between two remote effects and `wait` instead of sleeping.
    """

    def __init__(
        self, limit: timedelta | float, *, cancelled: Callable[[], str | None] | None = None
    ) -> None:
        seconds = limit.total_seconds() if isinstance(limit, timedelta) else float(limit)
        self._ends_at = boot_time() + seconds
        self._cancelled = cancelled or (lambda: None)

    def left_s(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self._ends_at - boot_time())

    def cancelled(self) -> str | None:
        """Return why nobody wants the call any more, or None."""
        return self._cancelled()

    def check(self) -> None:
        """
        Go on or stop.

        Raises:
            InterruptedCallError: Nobody wants the call any more.
            DeadlineExceededError: The time is up.
        """
        if reason := self._cancelled():
            raise InterruptedCallError(f"interrupted: {reason}")
        if self.left_s() <= 0:
            raise DeadlineExceededError("the call took longer than its budget")

    def wait(self, seconds: float, *, event: threading.Event | None = None) -> bool:
        """Sleep up to `seconds`, waking for `event` or a `check` that fails."""
        until = boot_time() + seconds
        pause = event or threading.Event()
        while (left := until - boot_time()) > 0:
            self.check()
            if pause.wait(min(left, _SLICE_S, max(self.left_s(), 0.001))):
                return True
        return False
