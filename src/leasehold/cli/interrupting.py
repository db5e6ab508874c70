"""
What happens to a run that somebody stops following: Ctrl-C, a TERM, a closed pipe.

The run is never ours: we only follow it. So the choice is to cancel it or to leave it running,
asked where somebody can be asked. Killed outright, we leave it.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal, TypeAlias

from leasehold.cli import heeding
from leasehold.cli.codes import BROKEN_PIPE, INTERRUPTED, say
from leasehold.cli.following import until_end
from leasehold.cli.output import ProgressLine
from leasehold.cli.ports import Follower, Port

OnInterrupt: TypeAlias = Literal["ask", "cancel", "detach"]


class _TermReceived(KeyboardInterrupt):
    """We were told to end, and there is nobody to ask."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us in order: the run is cancelled, a stack of ours stopped."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        heeding.interrupt(_TermReceived)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(
    port: Port,
    begin: Callable[[], Follower],
    on_interrupt: OnInterrupt,
    *,
    tick: Callable[[], None],
    progress: ProgressLine,
) -> tuple[Follower, int | None]:
    """
    Submit a run and follow it to its end.

    Args:
        begin: Submits it. A signal that comes meanwhile is about the run that it makes, so it
            waits until that is known.

    Returns:
        Its follower, and the exit code if we left it before; else None.

    Raises:
        KeyboardInterrupt: Two came before there was a run.
    """
    follower: Follower | None = None
    asked = broken = False
    while True:
        try:
            if follower is None:
                with heeding.unbroken():
                    follower = begin()
            until_end(follower, tick=tick, progress=progress)
        except BrokenPipeError:
            if follower is None:
                raise
            # Whoever read our output is gone; the command would have got SIGPIPE here.
            follower.stop_showing()
            broken = True
            port.runs.cancel(follower.run_id, why="its output's reader is gone")
        except KeyboardInterrupt as interrupt:
            if follower is None:
                raise
            progress.clear()
            told = isinstance(interrupt, _TermReceived)
            answer = "cancel" if asked else _answer(on_interrupt, told=told)
            if answer == "detach" or (asked and follower.row.get("end_requested")):
                say(f"run {follower.run_id} goes on; `leasehold runs logs -f` follows it")
                return follower, INTERRUPTED
            if answer == "cancel":
                asked = True
                say("cancelling; once more to leave it")
                port.runs.cancel(follower.run_id, why="interrupted")
        else:
            return follower, BROKEN_PIPE if broken else None


def _answer(on_interrupt: OnInterrupt, *, told: bool) -> str:
    """Return what to do now: cancel, detach, or go on."""
    if on_interrupt != "ask":
        return on_interrupt
    if told or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "cancel"
    sys.stderr.write("\n[c]ancel the run, [l]eave it running, or go [o]n following? [c] ")
    sys.stderr.flush()
    try:
        typed = sys.stdin.readline().strip().lower()
    except KeyboardInterrupt:
        return "cancel"
    return {"l": "detach", "o": "on"}.get(typed[:1], "cancel")
