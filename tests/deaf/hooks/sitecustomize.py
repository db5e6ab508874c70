"""
Ways for a test to make a worker deaf: signals whose handlers run in its main thread.

Python imports this by its name when `PYTHONPATH` leads here; no product code knows of it.
Each leaves the process alive, and connected to its broker.
"""

import ctypes
import gc
import os
import signal
import time
from types import FrameType


def _hold_the_lock(_signal: int, _frame: FrameType | None) -> None:
    """Sleep in C without giving the interpreter's lock back: no thread runs any more."""
    ctypes.PyDLL(None).sleep(600)


def _hang(_signal: int, _frame: FrameType | None) -> None:
    """Stop the event loop; the other threads go on."""
    while True:
        time.sleep(1)


def _stop_consuming(_signal: int, _frame: FrameType | None) -> None:
    """Do as after a bad reconnect: the loop turns, and the queues are not read any more."""
    from celery.worker.consumer import Consumer

    for found in gc.get_objects():
        if isinstance(found, Consumer):
            found.task_consumer.cancel()  # type: ignore[attr-defined]  # its step sets it


if os.environ.get("LEASEHOLD_HOME"):
    signal.signal(signal.SIGPROF, _hold_the_lock)
    signal.signal(signal.SIGURG, _hang)
    signal.signal(signal.SIGWINCH, _stop_consuming)
