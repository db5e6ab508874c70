"""
The broker: best effort only. It loses, doubles, delays, reorders and forgets.

A message that arrived waits in its queue for a consumer with a free slot; taking it is its
acknowledgement, so what a killed worker had taken is gone, as with early acks in Celery.
"""

from collections import defaultdict
from collections.abc import Callable

from leasehold.orchestrator.jobs import Message
from leasehold.simulation.scheduler import Scheduler, Signal
from leasehold.simulation.weather import Weather


class Slot:
    """One thread of a worker that takes messages from some queues."""

    def __init__(self, scheduler: Scheduler, queues: list[str]) -> None:
        self.queues = queues
        self.ring = Signal(scheduler)
        self.given: Message | None = None


class Broker:
    """Queues of messages."""

    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        self._scheduler, self._weather = scheduler, weather
        self._queues: defaultdict[str, list[Message]] = defaultdict(list)
        self._idle: dict[Slot, Callable[[], bool]] = {}
        self._era = 0
        self.away_until = 0.0
        self.published = 0
        self.on_publish: Callable[[Message], None] = lambda _message: None

    def publish(self, message: Message) -> bool | None:
        """Send one message; False if it was surely not sent."""
        scheduler, weather = self._scheduler, self._weather
        actor = scheduler.current
        assert actor is not None
        scheduler.before_wait()
        if actor.process.host.cut or scheduler.now < self.away_until:
            scheduler.sleep(scheduler.rng.choice((0.0, 1.0)))
            return False
        self.published += 1
        self.on_publish(message)
        if weather.strikes("broker.lost"):
            return True
        copies = 2 if weather.strikes("broker.doubled") else 1
        for _ in range(copies):
            wait = scheduler.rng.expovariate(500)
            if weather.strikes("broker.delayed"):
                wait = weather.some(0.05, 60.0)
            era = self._era
            scheduler.call(wait, lambda era=era: self._arrive(message, era))  # type: ignore[misc]  # bound now
        return True

    def flush(self) -> None:
        """Forget everything, what is under way too."""
        self._era += 1
        self._queues.clear()

    def _arrive(self, message: Message, era: int) -> None:
        if era != self._era:
            return
        for slot in list(self._idle):
            if message.queue in slot.queues and self._idle[slot]():
                del self._idle[slot]
                slot.given = message
                slot.ring.set()
                return
        self._queues[message.queue].append(message)

    def reconnect(self) -> None:
        """Let every waiting consumer look again: a network is back."""
        for slot in self._idle:
            slot.ring.set()

    def take(self, slot: Slot, *, connected: Callable[[], bool]) -> Message:
        """Wait for the next message of a slot's queues."""
        while True:
            if connected():
                for queue in slot.queues:
                    if self._queues[queue]:
                        return self._queues[queue].pop(0)
            slot.ring.clear()
            self._idle[slot] = connected
            try:
                slot.ring.wait()
            finally:
                self._idle.pop(slot, None)
            if slot.given is not None:
                message, slot.given = slot.given, None
                return message
