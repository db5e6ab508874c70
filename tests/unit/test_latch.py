"""A latch is set by signal handlers that come on top of each other, and wakes who waits."""

import os
import signal
import threading
from types import FrameType

from leasehold.runtime.latch import Latch


def test_handlers_on_top_of_each_other_and_of_who_waits_set_it() -> None:
    latch, calls = Latch(), []

    def handler(_signal: int, _frame: FrameType | None) -> None:
        calls.append(latch.is_set())
        latch.set()

    def storm() -> None:
        while not over.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)

    over = threading.Event()
    before = signal.signal(signal.SIGUSR1, handler)
    sender = threading.Thread(target=storm, daemon=True)
    try:
        assert not latch.wait(0)
        sender.start()
        assert latch.wait(20)
        while len(calls) < 300:
            assert Latch().wait(0) is False
            assert latch.wait(1)
    finally:
        over.set()
        sender.join(10)
        signal.signal(signal.SIGUSR1, before)
    assert calls[0] is False


def test_it_wakes_all_who_wait() -> None:
    latch, woken = Latch(), []
    waiters = [
        threading.Thread(target=lambda: woken.append(latch.wait(20)), daemon=True)
        for _ in range(5)
    ]
    for waiter in waiters:
        waiter.start()
    latch.set()
    for waiter in waiters:
        waiter.join(20)
    assert woken == [True] * 5
