"""
The five Celery tasks: doors of five lines around one call each.

A message is ``(kind, id, fence)``. Whatever is wrong with one (types, an unknown row, a stale
fence) is logged with its reason and dropped; what is no task of ours at all is stopped before
in `poison`. Nothing that a message says stops a worker.
"""

from typing import Any

from celery import Celery

from leasehold import poison
from leasehold.domain.lifecycle import Step
from leasehold.errors import LeaseholdError
from leasehold.log import get_logger
from leasehold.orchestrator import beats
from leasehold.orchestrator.jobs import Message
from leasehold.runtime.worker import WorkerRuntime
from leasehold.store import leases, runs

log = get_logger(__name__)
_KINDS = {"run", "lease", "beat", "check"}


def register(celery: Celery, runtime: WorkerRuntime) -> None:
    """Define the tasks of this process on its Celery application."""
    for step in Step:
        name = f"leasehold.{step.value}"
        # The feed tells Flower of each step, hop or no hop: Celery's own events would be more.
        celery.task(name=name, ignore_result=True, bind=True, send_events=False)(
            _task(runtime, step)
        )


def _task(runtime: WorkerRuntime, step: Step) -> Any:
    def run(task: Any, *args: Any, **kwargs: Any) -> None:
        message = parse(step, args, kwargs)
        if message is None:
            return
        try:
            with runtime.feed.chain(task.request.id):
                handle(runtime, message)
        except LeaseholdError as error:
            log.warning("task.stopped", step=step, id=message.id, why=str(error))
        except Exception:
            log.exception("task.fault", step=step, id=message.id)

    run.__name__ = step.value
    run.__doc__ = f"Do the step `{step.value}` of the row that the message names."
    return run


def handle(runtime: WorkerRuntime, message: Message) -> None:
    """Do what one message asks for; a stale one is said and dropped."""
    if message.kind == "beat":
        _beat(runtime, message)
    elif message.kind == "check":
        runtime.answer(message.id)
    elif not runtime.handle(message):
        _stale(runtime, message)


def _beat(runtime: WorkerRuntime, message: Message) -> None:
    # Another host's sandboxes would look as if they were gone from here.
    if f"{message.id}.beat" not in runtime.context.queues:
        poison.drop(f"no lane of ours: {message.id[:80]!r}", task="leasehold.heartbeat")
        return
    limit = runtime.app.settings.beat_batch
    while beats.run_once(runtime.context, message.id, limit=limit).looked >= limit:
        pass


def _stale(runtime: WorkerRuntime, message: Message) -> None:
    """Tell a message that came twice or late (daily bread) from one about nothing."""
    find = runs.find if message.kind == "run" else leases.find
    with runtime.app.database.read() as tx:
        known = find(tx, message.id) is not None
    name = f"leasehold.{message.step.value}"
    if known:
        log.info("message.stale", task=name, id=message.id, fence=message.fence)
    else:
        poison.drop(f"no {message.kind} {message.id[:80]!r}", task=name)


def parse(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message | None:
    """Return the message, or None with the reason in the log if it is none of ours."""
    fits = (
        len(args) == 3  # noqa: PLR2004  (kind, id, fence)
        and not kwargs
        and args[0] in _KINDS
        and isinstance(args[1], str)
        and isinstance(args[2], int)
        and not isinstance(args[2], bool)
    )
    if not fits:
        kinds = ", ".join(type(arg).__name__ for arg in args[:5])
        poison.drop(f"not (kind, id, fence): ({kinds})", task=f"leasehold.{step.value}")
        return None
    return Message(args[0], args[1], args[2], step, queue="")
