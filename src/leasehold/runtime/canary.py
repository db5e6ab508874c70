"""
The canary: proof that this worker's consumer still takes messages from its queues.

A Celery consumer can be connected and alive and never take anything again: its event loop is
stuck in a call, or a reconnect has left its queues unread. Its threads run, its agent hears
it, its session beats; only its work stands still. So each worker has a queue of its own
beside the shared ones, read by the same consumer over the same channel. When no message at
all has come for a while it sends itself one.

Deaf is who did not hear several canaries in a row, each of which the broker had surely taken,
over a whole `deaf_after`. A broker that is away takes none: then nothing is proven, and
nobody is killed in a circle. Nor is anything proven while the consumer may not take more
(messages wait for a thread), or when this thread itself was stopped.

A deaf worker ends itself at once, like a crash: its agent sees the death, gives its claims up
with raised fences and fills the place; commands go on. If even this thread cannot run (a C
call that holds the interpreter's lock), the agent hears nothing on the pipe and kills it.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.signals import task_received, worker_ready, worker_shutting_down
from celery.worker import state
from kombu import Exchange, Queue

from leasehold.domain.timers import Timers
from leasehold.log import get_logger
from leasehold.runtime.latch import Latch
from leasehold.seams import boot_time
from leasehold.transport import Publisher

log = get_logger(__name__)
TASK: Final = "leasehold.canary"
EXIT: Final = 71
"""Exit code of a worker that was deaf."""

_LEAST: Final = 3
"""Canaries that must have been lost."""

_QUEUE_EXPIRES_S: Final = 120
"""RabbitMQ removes the queue of a dead worker after this."""


class Ear:
    """The judgement: what was sent, what was heard; `turn` is asked at even intervals."""

    def __init__(
        self,
        *,
        send: Callable[[], bool],
        busy: Callable[[], bool],
        every: timedelta,
        deaf_after: timedelta,
    ) -> None:
        self._send, self._busy = send, busy
        self._every_s = every.total_seconds()
        self._deaf_after_s = deaf_after.total_seconds()
        self._heard = True
        self._since: float | None = None
        self._lost = 0
        self._turned_at = boot_time()

    def hear(self) -> None:
        """A message came, whichever."""
        self._heard = True

    def turn(self) -> bool:
        """Look once, send a canary if nothing was heard; True: this consumer is deaf."""
        now = boot_time()
        paused = now - self._turned_at > 2 * self._every_s
        self._turned_at = now
        if self._heard or paused or self._busy():
            self._forget()
            return False
        if self._since is not None:
            self._lost += 1
            if self._lost >= _LEAST and now - self._since >= self._deaf_after_s:
                return True
        if not self._send():
            self._forget()
        elif self._since is None:
            self._since = now
        return False

    def _forget(self) -> None:
        self._heard = False
        self._since, self._lost = None, 0


class Canary:
    """The canary of one Celery worker: its queue, its task, its thread."""

    def __init__(self, celery: Celery, *, worker_id: str, threads: int, timers: Timers) -> None:
        self._celery, self._worker_id, self._threads = celery, worker_id, threads
        self.queue = f"leasehold.canary.{worker_id}"
        self._publish = Publisher(celery)
        self._every_s = timers.canary_every.total_seconds()
        self._ear = Ear(
            send=self._send,
            busy=self._is_full,
            every=timers.canary_every,
            deaf_after=timers.deaf_after,
        )
        self._stop = Latch()
        celery.task(name=TASK, ignore_result=True, send_events=False)(_sing)
        # No exchange, so that nothing of it stays behind in Redis.
        queue = Queue(
            self.queue, Exchange(""), routing_key=self.queue, expires=_QUEUE_EXPIRES_S
        )
        celery.amqp.queues[self.queue] = queue

    def attach(self) -> None:
        """Listen as soon as the worker consumes, until it drains."""

        @task_received.connect(weak=False)
        def heard(**_: Any) -> None:
            self._ear.hear()

        @worker_ready.connect(weak=False)
        def ready(**_: Any) -> None:
            threading.Thread(target=self._loop, name="canary", daemon=True).start()

        @worker_shutting_down.connect(weak=False)
        def draining(**_: Any) -> None:
            self._stop.set()

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            if self._ear.turn() and not self._stop.is_set():
                log.error("worker.deaf", worker=self._worker_id, queue=self.queue)
                with suppress(Exception):
                    self._remove_queue()
                os._exit(EXIT)

    def _send(self) -> bool:
        return self._publish.send(TASK, ("canary", self._worker_id, 0), queue=self.queue)

    def _is_full(self) -> bool:
        waiting = len(state.reserved_requests) - len(state.active_requests)
        return waiting >= self._threads

    def _remove_queue(self) -> None:
        with self._publish.connection() as connection:
            Queue(self.queue, channel=connection.default_channel).delete()


def _sing(*_: Any) -> None:
    """Have come: that is all."""
