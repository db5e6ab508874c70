"""
Celery as we use it: a transport of "look at this row", and nothing else.

No result backend, no countdown, no retry, no canvas; JSON only; early ack; prefetch 1; pool
`threads`. The broker is disposable, so each option here is about latency and about not
hanging, never about durability.
"""

import threading
from collections.abc import Callable
from typing import Any, Final, Self

from celery import Celery
from kombu import Connection, Queue, pools

from leasehold import poison, rabbitmq
from leasehold.errors import BrokerUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator.jobs import Message
from leasehold.provider.budget import boot_time
from leasehold.settings import Settings

log = get_logger(__name__)
TASKS: Final = ("validate", "acquire", "execute", "heartbeat", "release")
GENERAL_QUEUE: Final = "leasehold"
HANG_S: Final = 1.0
"""How long a publisher waits for a broker's answer."""

PAUSE_S: Final = 1.0
"""How long nothing is published after a failure."""


def broker_address(settings: Settings) -> str:
    """
    Return the broker's URL: the setting, or where the embedded one of this home listens.

    Raises:
        BrokerUnavailableError: Neither; says how to get one.
    """
    if settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    path = settings.home / "broker-url"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise BrokerUnavailableError(
            f"no broker: set LEASEHOLD_BROKER_URL, or start `leasehold up` in {settings.home}"
        ) from None


class Prompt(Connection):
    """A connection that looks again soon: kombu's own would wait for up to 30 s."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Self:
        gaps = {"interval_start": 0.2, "interval_step": 0.3, "interval_max": 2.0}
        super().ensure_connection(*args, **{**gaps, **kwargs})
        return self


def make(settings: Settings, *, broker_url: str | None = None) -> Celery:
    """Return the Celery application of this process."""
    poison.guard_envelopes()
    rabbitmq.guard()
    address = broker_url or broker_address(settings)
    app = Celery("leasehold", broker=address)
    app.amqp.Connection = Prompt
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        result_backend=None,
        task_acks_late=False,
        task_default_queue=GENERAL_QUEUE,
        task_queues=[Queue(GENERAL_QUEUE)],
        task_create_missing_queues=True,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_send_task_events=settings.events,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        # Opened when needed only. Flower's eight inspecting threads take two each, nested:
        # with fewer in all than threads they would wait for each other for ever.
        broker_pool_limit=16,
    )
    if rabbitmq.is_ours(address):
        app.amqp.queues_cls = rabbitmq.Queues
        app.conf.update(
            rabbitmq.configuration(),
            task_queues=[rabbitmq.queue(GENERAL_QUEUE)],
            broker_transport_options=rabbitmq.worker_options(),
        )
    else:
        app.conf.broker_transport_options = _redis_options(settings)
    return app


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        # What a worker has taken is its own: kombu keeps no copy in Redis, and gives none
        # away after a "visibility timeout". The row is due, which is the better copy.
        "ack_emulation": False,
        "health_check_interval": 10,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "global_keyprefix": settings.broker_prefix,
        "queue_order_strategy": "priority",
        "priority_steps": [0],
    }


class Publisher:
    """
    Sends messages, best effort: a broker that is away costs latency, never a run.

    It has connections of its own, with short timeouts, because a person or a slot waits for
    it: a broker that refuses costs nothing, one that accepts and never answers `HANG_S` or
    two. After a failure nothing is tried for `PAUSE_S`, so that a batch of messages does not
    pay for each; their rows are due, and the clock sends them again.
    """

    def __init__(
        self, app: Celery, *, on_failure: Callable[[str], None] = lambda _why: None
    ) -> None:
        self._app = app
        self._on_failure = on_failure
        self._confirms = rabbitmq.is_ours(app.conf.broker_url)
        if self._confirms:
            impatient = rabbitmq.publisher_options(answer_s=HANG_S)
        else:
            impatient = {"socket_timeout": HANG_S, "socket_connect_timeout": HANG_S}
        options = app.conf.broker_transport_options | {
            **impatient,
            # One try: kombu's own would go on for its whole timeout.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }
        connection = app.connection_for_write(transport_options=options, connect_timeout=HANG_S)
        self._producers = pools.producers[connection]
        self.connection = connection.clone
        """Make a connection as impatient as this one's."""

        self._paused_until = 0.0

    def __call__(self, message: Message) -> bool:
        task = f"leasehold.{message.step.value}"
        return self.send(task, (message.kind, message.id, message.fence), queue=message.queue)

    def send(self, task: str, args: tuple[str, str, int], *, queue: str) -> bool:
        """Send one task; False if it was surely or perhaps not taken."""
        if boot_time() < self._paused_until:
            log.debug("publish.skipped", queue=queue)
            return False
        try:
            with self._producers.acquire(block=True, timeout=HANG_S) as producer:
                self._send(producer, task, args, queue=queue)
        except Exception as error:  # noqa: BLE001  any transport's fault means the same
            self._paused_until = boot_time() + PAUSE_S
            log.warning("publish.failed", queue=queue, why=str(error)[:200])
            self._on_failure(str(error)[:200])
            return False
        return True

    def _send(
        self, producer: Any, task: str, args: tuple[str, str, int], *, queue: str
    ) -> None:
        try:
            self._app.send_task(
                task, args=args, queue=queue, producer=producer, retry=False, ignore_result=True
            )
        except Exception:
            if self._confirms:
                # The answer may still come, and would be taken for the next message's.
                producer.connection.collect()
            raise


def publisher(
    settings: Settings, *, on_failure: Callable[[str], None] = lambda _why: None
) -> Callable[[Message], bool]:
    """
    Return how this process sends messages; without a broker, rows wait for the clock.

    `on_failure` is told why a message was not sent, for a door that has a person before it.
    """
    try:
        return Publisher(make(settings), on_failure=on_failure)
    except BrokerUnavailableError as error:
        why = str(error)

        def nobody(message: Message) -> bool:
            log.debug("publish.skipped", queue=message.queue, why=why)
            return False

        return nobody


class Sender:
    """Sends messages to the broker that there is now: an embedded one moves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._address: str | None = None
        self._publisher: Publisher | None = None

    def __call__(self, message: Message) -> bool:
        publisher = self._current()
        return publisher is not None and publisher(message)

    def _current(self) -> Publisher | None:
        try:
            address = broker_address(self._settings)
        except BrokerUnavailableError:
            return None
        with self._lock:
            if address != self._address:
                self._publisher = Publisher(make(self._settings, broker_url=address))
                self._address = address
            return self._publisher


def after_fork() -> None:
    """Leave the parent's connections to the parent: they are open, and its alone."""
    pools.producers.clear()
    pools.connections.clear()
