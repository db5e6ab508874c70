"""
P6: the broker is disposable.

Messages are lost, doubled, reversed and repeated for ever; only latency changes. The stories
and the checks are those of the crash suite, nobody is killed.
"""

import queue
from collections.abc import Callable
from dataclasses import replace

import pytest

from crash.expected import Scenario
from crash.harness import Cells, Engine
from crash.scenarios import SCENARIOS
from crash.sweep import tell
from leasehold.orchestrator.jobs import Message

NAMES = {"success", "retry", "reuse", "cancel", "timeout", "held", "infra", "retain"}
STORIES = [story for story in SCENARIOS if story.provider == "fake" and story.name in NAMES]


def loses_all_but_the_clocks(engine: Engine) -> None:
    """Lose every message that is not the clock's: rows alone carry the work."""
    engine.clock = replace(engine.context)
    engine.context.publish = engine.beats.publish = lambda _message: None


def loses_every_first(engine: Engine) -> None:
    """Lose each message the first time that it is sent."""
    seen: set[Message] = set()

    def publish(message: Message) -> None:
        if message in seen:
            engine.inbox.put(message)
        seen.add(message)

    engine.context.publish = engine.beats.publish = publish


def triples_and_reverses(engine: Engine) -> None:
    """Deliver each message three times, the last one first."""
    engine.inbox = queue.LifoQueue()

    def publish(message: Message) -> None:
        for _ in range(3):
            engine.inbox.put(message)

    engine.context.publish = engine.beats.publish = publish


def repeats_for_ever(engine: Engine) -> None:
    """Deliver with each message all that were ever sent before, the oldest last."""
    sent: list[Message] = []

    def publish(message: Message) -> None:
        sent.append(message)
        for old in reversed(sent[-60:]):
            engine.inbox.put(old)

    engine.context.publish = engine.beats.publish = publish


def is_away_every_other_time(engine: Engine) -> None:
    """Refuse every other message, and say so."""
    refused = False

    def publish(message: Message) -> bool:
        nonlocal refused
        refused = not refused
        if not refused:
            engine.inbox.put(message)
        return not refused

    engine.context.publish = engine.beats.publish = publish


BROKERS = [
    loses_all_but_the_clocks,
    loses_every_first,
    triples_and_reverses,
    repeats_for_ever,
    is_away_every_other_time,
]


@pytest.mark.parametrize(
    "broker",
    BROKERS,
    ids=lambda broker: broker.__name__,
)
@pytest.mark.parametrize("story", STORIES, ids=[story.id for story in STORIES])
def test_a_broker_that(cells: Cells, story: Scenario, broker: Callable[[Engine], None]) -> None:
    tell(cells, replace(story, tune=broker))
