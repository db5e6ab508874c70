"""Celery's consumer without its queues for countdowns; in a file that only workers import."""

from celery.worker import consumer


class Consumer(consumer.Consumer):
    """
    A consumer of quorum queues that declares no others.

    Celery's own declares 28 quorum queues for countdowns, which we never have, binds each of
    ours to them, and waits for it at every start and reconnect.
    """

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]  # untyped
        default_steps = tuple(
            step
            for step in consumer.Consumer.Blueprint.default_steps
            if not str(step).endswith(":DelayedDelivery")
        )
