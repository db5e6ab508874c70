"""
RabbitMQ as a carrier: quorum queues, answers that are waited for only so long, no trust.

*Queues.* Every queue of ours is a quorum queue, whoever declares it first: the general one, the
providers', the hosts', each with its beat lane. Declarations must be equal to the letter, so
they are all made by `Queues`. They hang on the default exchange, so that nothing else is left
behind, and vanish a week after the last worker has left (a forgotten host's too). Celery's own
control and event queues stay classic; they are durable with an expiry, because RabbitMQ is
about to refuse transient ones, and not exclusive: a connection that the server has not yet
given up would lock its own successor out.

*Answers.* py-amqp waits for ever for the answer to a declaration or to a confirm, and its
`read_timeout` only begins the read anew. `Connection` gives the socket itself a timeout, so
that each wait ends. It does not look which message a confirm is for, so a connection on which
a wait was given up must never be used again; `transport.Publisher` throws it away.

*Trust.* A property table that py-amqp cannot read ends its connection, and the message comes to
the next worker. Here such a message has no properties at all, which `poison` drops. Bodies are
never unpacked.
"""

from typing import Any, Final

import amqp
from amqp import basic_message, method_framing
from celery.app.amqp import Queues as CeleryQueues
from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES, pyamqp
from kombu.transport import _transport_cache as resolved  # type: ignore[attr-defined]  # not in the stubs

SCHEMES: Final = ("amqp", "amqps", "pyamqp")
ANSWER_S: Final = 5.0
"""How long a worker waits for an answer of the server."""

HEARTBEAT_S: Final = 10
"""A server that says nothing for twice as long is gone."""

EXPIRES_S: Final = 7 * 24 * 3600
"""A queue that nobody consumes vanishes after this."""

QUORUM: Final = {"x-queue-type": "quorum"}
_UNREADABLE: Final = (amqp.AMQPError, ArithmeticError, LookupError, RecursionError, ValueError)


def is_ours(url: str) -> bool:
    """Return whether a broker's URL means RabbitMQ."""
    return url.partition("://")[0].lower() in SCHEMES


def queue(name: str) -> Queue:
    """Return a quorum queue on the default exchange."""
    return Queue(
        name,
        Exchange(""),
        routing_key=name,
        durable=True,
        expires=EXPIRES_S,
        queue_arguments=dict(QUORUM),
    )


class Queues(CeleryQueues):
    """Celery's table of queues, in which every unknown name is a quorum queue."""

    def new_missing(self, name: str) -> Queue:
        return queue(name)

    def add_compat(self, name: str, **_: Any) -> Queue:
        """Take a name alone, as a worker does that adds to what it consumes."""
        return self._add(queue(name))

    def _add(self, queue: Queue) -> Queue:
        """Keep the default exchange, where Celery would make one for each queue."""
        dict.__setitem__(self, queue.name, queue)
        return queue


class Properties(basic_message.Message):
    """A message as it is on the wire; properties that cannot be read are none."""

    def _load_properties(self, class_id: int, buf: bytes, offset: int) -> int:
        try:
            return int(super()._load_properties(class_id, buf, offset))  # type: ignore[misc]  # untyped
        except (*_UNREADABLE, OSError):
            self.properties = {}
            return offset


class Message(pyamqp.Message):
    """A message whose body stays as it came."""

    def __init__(self, msg: Any, channel: Any = None, **kwargs: Any) -> None:
        headers = msg.properties.get("application_headers") or {}
        packed = headers.pop("compression", None)
        super().__init__(msg, channel=channel, **kwargs)
        if packed:
            self.content_type = f"compressed with {str(packed)[:40]}"


class Channel(pyamqp.Channel):
    """A channel whose messages stay as they came."""

    Message = Message


class Connection(pyamqp.Connection):
    """A connection on which no wait is longer than `answer_s`."""

    Channel = Channel

    def __init__(self, *args: Any, answer_s: float = ANSWER_S, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer_s = answer_s

    def connect(self, callback: Any = None) -> Any:
        connected = super().connect(callback)
        if self.transport is not None and self.transport.sock is not None:
            self.transport.sock.settimeout(self._answer_s)
        return connected


class Transport(pyamqp.Transport):
    """kombu's AMQP transport with our connection."""

    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = Connection


def guard() -> None:
    """Read RabbitMQ through our classes from the next connection on."""
    method_framing.Message = Properties  # type: ignore[misc]  # no other door to it
    for scheme in SCHEMES:
        kind = "SSLTransport" if scheme == "amqps" else "Transport"
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{kind}"
        resolved.pop(scheme, None)


def worker_options() -> dict[str, Any]:
    """Return kombu's transport options for whoever consumes."""
    return {"answer_s": ANSWER_S}


def publisher_options(*, answer_s: float) -> dict[str, Any]:
    """Return kombu's transport options for whoever publishes: it wants to be told "taken"."""
    return {"answer_s": answer_s, "confirm_publish": True}


def configuration() -> dict[str, Any]:
    """Return Celery's settings that only RabbitMQ needs."""
    return {
        "worker_consumer": "leasehold.rabbitmq_consumer:Consumer",
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        "broker_heartbeat": HEARTBEAT_S,
        "broker_heartbeat_checkrate": 2,
        "broker_login_method": "PLAIN",
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "event_queue_exclusive": False,
        "event_queue_durable": True,
    }
