"""
Poison: whatever in a queue is not a message of ours is logged, counted, dropped and acked.

Stock Celery 5.7 ends the worker or its connection on one malformed message in four, and the
message comes back to the next worker. So each is judged twice before Celery acts on it:

- *Envelope* (Redis only, where kombu itself parses what lies in the list): our channel turns
  any fault of that parsing into a drop. The item was popped and is registered nowhere yet, so
  dropping it is forgetting it. Compressed bodies are refused before they are unpacked.
- *Message* (any broker): a whitelist of the shape that `transport` sends. What Celery would
  do with anything else (count down, expire, retry, unpickle) is never tried.

Nothing is lost by a drop: the row that a message meant is due, and the clock sends it again.
The log line says why, the task's name (cut) and the size, never the body.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, bootsteps
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import _transport_cache as resolved  # type: ignore[attr-defined]  # not in the stubs
from kombu.transport import redis as kombu_redis

from leasehold.log import get_logger

log = get_logger(__name__)
MAX_BODY_BYTES: Final = 16 * 1024
"""Ours are below 1 KiB."""

_CUT: Final = 80
_MAX_ID: Final = 200
_MAX_FENCE: Final = 2**62
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_NO_LIMITS: Final = (None, [None, None])
_NO_RETRIES: Final = (None, 0)
_count = itertools.count(1)


class PoisonError(Exception):
    """What came is no message; `size` in bytes as far as it is known."""

    def __init__(self, reason: str, *, task: object = None, size: int | None = None) -> None:
        super().__init__(reason)
        self.task, self.size = task, size


def drop(reason: str, *, task: object = None, size: int | None = None) -> None:
    """Say that a message was thrown away, and why; the count is this process's."""
    name = None if task is None else str(task)[:_CUT]
    log.error(
        "message.dropped", reason=reason[:300], task=name, size=size, dropped=next(_count)
    )


class Message(virtual.Message):
    """A message whose parsing fails with one kind of error only."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        task = size = None
        try:
            headers, body = payload.get("headers"), payload.get("body")
            if isinstance(headers, dict):
                task = headers.get("task")
                if headers.get("compression"):
                    raise PoisonError("a compressed body", task=task)
            size = len(body) if isinstance(body, str) else None
            super().__init__(payload, channel=channel, **kwargs)
            info = self.delivery_info
            texts = (self.delivery_tag, info["exchange"], info["routing_key"])
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("delivery tag, exchange and routing key must be text")
        except _MALFORMED as error:
            reason = f"no Celery envelope: {type(error).__name__}: {error}"
            raise PoisonError(reason, task=task, size=size) from None


class Channel(kombu_redis.Channel):
    """Redis lists, read without trust."""

    Message = Message

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]  # untyped
        except (ValueError, RecursionError) as error:
            drop(f"no Celery envelope: not JSON: {error}")
            return True

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002  kombu's
        try:
            return super()._get(queue)
        except (ValueError, RecursionError) as error:
            drop(f"no Celery envelope: not JSON: {error}")
            raise virtual.Empty from None


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with our channel."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except PoisonError as error:
            drop(str(error), task=error.task, size=error.size)


def judge(message: Any, names: frozenset[str]) -> str | None:
    """Return why a message is none of ours, or None if it is."""
    headers = message.headers
    if not isinstance(headers, dict) or "task" not in headers:
        return "no task in its headers"
    name = headers["task"]
    if not isinstance(name, str) or name not in names:
        return "unknown task"
    size = len(message.body or b"")
    if size > MAX_BODY_BYTES:
        return f"a body of more than {MAX_BODY_BYTES} bytes"
    if message.content_type != "application/json" or headers.get("compression"):
        return f"content type {str(message.content_type)[:_CUT]!r}, only plain JSON is read"
    if not isinstance(headers.get("id"), str) or len(headers["id"]) > _MAX_ID:
        return "no task id"
    if headers.get("eta") or headers.get("expires"):
        return "it has an eta or an expiry"
    if headers.get("timelimit") not in _NO_LIMITS or headers.get("retries") not in _NO_RETRIES:
        return "it has limits or retries"
    return _judge_body(message.body)


def _judge_body(body: Any) -> str | None:
    try:
        parsed = json.loads(body)
    except (ValueError, TypeError, RecursionError) as error:
        return f"its body is no JSON: {type(error).__name__}"
    match parsed:
        case [[str(), str() as row_id, int() as fence], dict() as kwargs, dict()]:
            if kwargs or isinstance(fence, bool):
                return "not (kind, id, fence)"
            if len(row_id) > _MAX_ID or not (row_id.isascii() and row_id.isprintable()):
                return "an id that cannot be one"
            return None if 0 <= fence < _MAX_FENCE else "a fence that cannot be one"
        case _:
            return "not (kind, id, fence)"


class Guard(bootsteps.StartStopStep):
    """Puts `judge` before Celery's own handler, for the life of the consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Wrap the consumer's handler; a reconnect starts this step again."""
        if getattr(parent, "leasehold_guard", False):
            return
        parent.leasehold_guard = True
        make: Callable[..., Any] = parent.create_task_handler
        ours = frozenset(n for n in parent.app.tasks if n.startswith("leasehold."))
        broken = parent.connection_errors + parent.channel_errors

        def create_task_handler(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
            handle = make(*args, **kwargs)

            def on_task_received(message: Any) -> Any:
                reason = _judged(message, ours)
                if reason is None:
                    try:
                        return handle(message)
                    except broken:
                        raise
                    except Exception as error:  # noqa: BLE001  a message never ends a worker
                        reason = f"{type(error).__name__}: {error}"
                headers = message.headers if isinstance(message.headers, dict) else {}
                drop(reason, task=headers.get("task"), size=len(message.body or b""))
                message.ack_log_error(log, parent.connection_errors)
                return None

            return on_task_received

        parent.create_task_handler = create_task_handler


def _judged(message: Any, names: frozenset[str]) -> str | None:
    try:
        return judge(message, names)
    except _MALFORMED as error:
        return f"unreadable: {type(error).__name__}"


def guard_envelopes() -> None:
    """Read Redis through our channel from the next connection on; kombu keeps its choices."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
        resolved.pop(scheme, None)


def install(app: Celery) -> None:
    """Judge each message before the workers of this application do anything with it."""
    app.steps["consumer"].add(Guard)
