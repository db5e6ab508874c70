"""
Flower's view: each step is a Celery job of its own, hop or no hop.

Most steps are no messages (the sticky chain), so Celery's own events would show one task per
chain. They are switched off for our tasks, and this feed tells of every step instead: under
the id of its message if it came by one, else under an id of its own, with the run as the
root. Waiting commands must not flood anybody: `heartbeat` is one job per execution, from its
first look to its recorded end. Beat lane and steps worker are different processes, so its id
is derived from the execution's.

A job that Flower shows proves nothing: SQL does. What is lost here (a killed worker's last
words) stays `STARTED` in Flower. Without ``-E`` a step costs one look at a flag.

Whether to tell is settled when a worker starts. Our children have no dispatcher without
``-E``, so Flower's "enable events" finds nothing to switch on there: a dispatcher is one more
connection to the broker for every worker, which has to come back with each reconnect.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from celery import Celery, bootsteps

from leasehold.domain.lifecycle import ExecutionStatus, Step
from leasehold.log import get_logger
from leasehold.orchestrator.jobs import SECOND_US, Job
from leasehold.provider.budget import boot_time

log = get_logger(__name__)
_HEARTBEATS: Final = UUID("6b0f5c1e-5d0c-4c43-9a4f-2f0c8f1f8f6d")
_UNENDED: Final = frozenset({ExecutionStatus.STARTING.value, ExecutionStatus.RUNNING.value})


@dataclass(slots=True)
class _Open:
    """The step that this thread works on, as Flower knows it."""

    uuid: str
    began: float


class _Thread(threading.local):
    """What one thread's chain remembers."""

    request_id: str | None = None
    before: str | None = None
    open: _Open | None = None


class Feed:
    """Tells Celery's monitors of steps, if anybody listens; one per worker process."""

    def __init__(self) -> None:
        self._consumer: Any = None
        self._thread = _Thread()

    def attach(self, app: Celery) -> None:
        """Follow the consumer of this process's worker; before it starts."""

        class Follow(bootsteps.StartStopStep):
            requires = ("celery.worker.consumer.events:Events",)

            def start(_, parent: Any) -> None:  # noqa: N805  the feed is `self` here
                self._consumer = parent

        app.steps["consumer"].add(Follow)

    def wanted(self) -> bool:
        """Return whether to tell: ``-E``, or "enable events" where a dispatcher is there."""
        # Never kept: each reconnect makes a new dispatcher.
        dispatcher = getattr(self._consumer, "event_dispatcher", None)
        if dispatcher is None or not dispatcher.enabled:
            return False
        return not dispatcher.groups or "task" in dispatcher.groups

    @contextmanager
    def chain(self, request_id: str | None) -> Iterator[None]:
        """Bracket all steps that follow from one message (or from a seen exit)."""
        here = self._thread
        here.request_id, here.before, here.open = request_id, None, None
        try:
            yield
        except BaseException as error:
            self._abandoned(error)
            raise
        finally:
            here.request_id = here.before = here.open = None

    def on_step(self, phase: str, job: Job, error: str | None) -> None:
        """Hear of a step; the engine's hook. Whatever fails here, the step goes on."""
        if not self.wanted():
            return
        try:
            if job.step is Step.HEARTBEAT and job.execution is not None:
                self._heartbeat(phase, job)
            elif phase == "started":
                self._started(job)
            else:
                self._ended(error if phase == "failed" else None)
        except Exception as fault:  # noqa: BLE001  a monitor's trouble is not the run's
            log.debug("feed.failed", why=f"{type(fault).__name__}: {fault}"[:200])

    def _started(self, job: Job) -> None:
        here = self._thread
        uuid = here.request_id or str(uuid4())
        here.request_id = None
        self._begin(uuid, job, parent=here.before)
        here.before, here.open = uuid, _Open(uuid, boot_time())

    def _ended(self, error: str | None) -> None:
        opened, self._thread.open = self._thread.open, None
        if opened is None:
            return
        if error is not None:
            self._failed(opened.uuid, error)
        else:
            self._succeeded(opened.uuid, "done", boot_time() - opened.began)

    def _abandoned(self, error: BaseException) -> None:
        opened = self._thread.open
        if opened is not None:
            self._failed(opened.uuid, f"stopped: {type(error).__name__}: {error}")

    def _heartbeat(self, phase: str, job: Job) -> None:
        """One job per execution: it begins with the first look, and ends with the exit."""
        execution = job.execution
        assert execution is not None
        uuid = str(uuid5(_HEARTBEATS, execution["id"]))
        if phase == "started":
            self._begin(uuid, job, parent=self._thread.before)
            self._thread.before, self._thread.open = uuid, None
            return
        if execution["status"] in _UNENDED:
            return
        self._thread.before = uuid
        self._received(uuid, job, parent=None)  # its start may never have been told
        if execution["status"] == ExecutionStatus.EXITED:
            began = execution["started_at"] or execution["created_at"]
            code, signal = execution["exit_code"], execution["signal"]
            result = f"exit code {code}" if signal is None else f"signal {signal}"
            self._succeeded(uuid, result, max(0, execution["ended_at"] - began) / SECOND_US)
        else:
            self._failed(uuid, f"the execution is {execution['status']}")

    def _begin(self, uuid: str, job: Job, *, parent: str | None) -> None:
        self._received(uuid, job, parent=parent)
        self._send("started", uuid)

    def _received(self, uuid: str, job: Job, *, parent: str | None) -> None:
        kind = "run" if job.run is not None else "lease"
        self._send(
            "received",
            uuid,
            name=f"leasehold.{job.step.value}",
            args=repr((kind, job.subject_id, job.fence)),
            kwargs="{}",
            root_id=root_of(job),
            parent_id=parent,
            retries=0,
            eta=None,
            expires=None,
        )

    def _succeeded(self, uuid: str, result: str, runtime_s: float) -> None:
        self._send("succeeded", uuid, result=result, runtime=runtime_s)

    def _failed(self, uuid: str, why: str) -> None:
        self._send("failed", uuid, exception=why, traceback="")

    def _send(self, kind: str, uuid: str, **fields: Any) -> None:
        dispatcher = getattr(self._consumer, "event_dispatcher", None)
        if dispatcher is not None:
            dispatcher.send(f"task-{kind}", uuid=uuid, **fields)


def root_of(job: Job) -> str:
    """Return what all steps of one run have in common: its id, or a lone lease's."""
    if job.run is not None:
        return str(job.run["id"])
    assert job.lease is not None
    return str(job.lease["run_id"] or job.lease["id"])
