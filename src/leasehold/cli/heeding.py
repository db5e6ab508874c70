"""
When a signal may interrupt us: between two pieces of work, and not inside of one.

What a handler raises comes out wherever Python code runs next. In the middle of a statement
that may be a function which the database's driver calls from C (SQLite asks us for the time):
there it is lost, and reaches the caller as a database that failed. Ctrl-C would end what it
should have asked about. So a piece of work is done to its end first; whoever has not the
patience sends the signal again.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_depth = 0
_pending: type[KeyboardInterrupt] | None = None


def interrupt(kind: type[KeyboardInterrupt] = KeyboardInterrupt) -> None:
    """
    Raise `kind` now, or when the piece of work is done that was interrupted.

    Raises:
        KeyboardInterrupt: Nothing is under way, or this is the second one in it.
    """
    global _pending  # noqa: PLW0603 - a process has one main thread, and signals come to it
    if _depth and _pending is None:
        _pending = kind
        return
    _pending = None
    raise kind


@contextmanager
def unbroken() -> Iterator[None]:
    """
    Do what is inside to its end before a signal interrupts us.

    Raises:
        KeyboardInterrupt: One came meanwhile.
    """
    global _depth, _pending  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _pending is not None:
            kind, _pending = _pending, None
            raise kind


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Take SIGINT in this way, unless it is ignored or somebody else takes it already."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGINT, _on_sigint)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _on_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_sigint(_signal: int, _frame: FrameType | None) -> None:
    interrupt()
