"""
A run and a lease as the API showed them last, with what may be asked of them.

They never change: each question returns a fresh one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self, Unpack

from leasehold import seams
from leasehold.client import following
from leasehold.client.following import Chunk
from leasehold.client.paging import given
from leasehold.client.shapes import Event, Execution, Shape, Shown
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, RunFields, as_json, body
from leasehold.ids import new_id

_BOTH: Final = ("stdout", "stderr")
_EVENTS: Final = 1000


def submit(
    wire: Wire,
    command: Sequence[str] | None,
    fields: RunFields,
    *,
    where: dict[str, str | None],
    key: str | None,
) -> "Run":
    """Create a run; the key stays the same over all tries, so that it is one run."""
    asked = body(command, fields) | {name: at for name, at in where.items() if at is not None}
    return Run.of(wire, wire.post("runs", asked, key=key or new_id()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Shown):
    """One piece of work."""

    id: str
    environment: str
    provider: str
    status: str
    step: str | None
    code: str | None
    """Why it failed: one of `leasehold.errors.RUN_CODES`."""

    message: str | None
    exit_code: int | None
    attempt: int
    infra_attempts: int
    end_requested: str | None
    lease_id: str | None
    labels: dict[str, str]
    priority: int
    workspace: str | None
    key: str | None
    retry_of: str | None
    created_at: datetime
    admitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    waits_for: int = 0
    """So many of the runs that it starts after have not ended yet."""

    progress: Shape | None = None
    """What its command said last of how far it is: `percent`, `message`, `at`, `heard_at`."""

    result: Any = None
    """What its command said that it came to; neither is in lists."""

    executions: tuple[Execution, ...] = ()
    _wire: Wire = field(repr=False, compare=False)

    @classmethod
    def of(cls, wire: Wire, shape: Shape) -> Self:
        """Return the run that the API shows."""
        starts = tuple(Execution.read(item) for item in shape.get("executions", ()))
        return cls.read(shape, executions=starts, _wire=wire)

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "succeeded"

    @property
    def over(self) -> bool:
        return self.finished_at is not None

    def refresh(self) -> Self:
        """Return the run as it is now."""
        return self.of(self._wire, self._wire.get(f"runs/{self.id}"))

    def wait(self, timeout: float | None = None) -> Self:
        """
        Return the run once it is over, or parked: then nothing happens until `resume`.

        Raises:
            TimeoutError: Neither within `timeout` seconds; the run goes on.
        """
        until = None if timeout is None else seams.boot_time() + timeout
        for pause in following.pauses():
            shape = self._wire.get(f"runs/{self.id}")
            if following.is_over(shape):
                return self.of(self._wire, shape)
            left = pause if until is None else until - seams.boot_time()
            if left <= 0:
                raise TimeoutError(f"run {self.id} is {shape['status']} after {timeout:g} s")
            seams.sleep(min(pause, left))
        raise AssertionError("pauses have no end")

    def stream(self, *, streams: Sequence[str] = _BOTH) -> Iterator[Chunk]:
        """Yield output as it comes, from the beginning, until the run is over."""
        return following.follow(self._wire, self.id, streams=streams)

    def output(self, stream: str = "stdout", *, start: int | None = None) -> bytes:
        """
        Return what is stored of a stream now, with secrets hidden.

        Args:
            start: The number of an execution; without it, the last one.
        """
        start = start if start is not None else self._last_start()
        if start is None:
            return b""
        parts: list[bytes] = []
        ended = False
        while not ended:
            offset = sum(map(len, parts))
            data, ended = following.page(
                self._wire, self.id, stream=stream, start=start, offset=offset
            )
            if not data:
                break
            parts.append(data)
        return b"".join(parts)

    def pages(
        self, stream: str, start: Execution, *, limit: int | None = None
    ) -> Iterator[Chunk]:
        """Yield what is stored now of one stream of one of its executions, page by page."""
        offset, ended = 0, False
        while not ended:
            data, ended = following.page(
                self._wire,
                self.id,
                stream=stream,
                start=start.number,
                offset=offset,
                limit=limit,
            )
            if not data:
                return
            yield Chunk(data, stream, start.number, start.command, offset)
            offset += len(data)

    def _last_start(self) -> int | None:
        """Return the last execution's number; chosen once, since the pages are of one."""
        return max((item.number for item in self.refresh().executions), default=None)

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Yield the run's history so far, the oldest first, from an event's id on."""
        while True:
            page = self._wire.get(f"runs/{self.id}/events", after=after, limit=_EVENTS)
            yield from (Event.read(item) for item in page["items"])
            if len(page["items"]) < _EVENTS:
                return
            after = page["next"]

    def cancel(self) -> Self:
        """Ask it to end; it is cancelled once nothing of it runs any more."""
        return self.of(self._wire, self._wire.post(f"runs/{self.id}/cancel", repeat=True))

    def retry(self, *, key: str | None = None) -> Self:
        """Submit it anew once it has ended, as a new run that names this one."""
        return self.of(
            self._wire, self._wire.post(f"runs/{self.id}/retry", key=key or new_id())
        )

    def extend(
        self, *, deadline: Duration | None = None, timeout: Duration | None = None
    ) -> Self:
        """
        Give it more time: a later deadline, or a longer timeout of what is not started yet.

        Sent once: counted from now, it would be more the second time.
        """
        asked = given(deadline_s=deadline, timeout_s=timeout)
        return self.of(self._wire, self._wire.post(f"runs/{self.id}/extend", as_json(asked)))

    def resume(self) -> Self:
        """Send it back to the queue if it is parked."""
        return self.of(self._wire, self._wire.post(f"runs/{self.id}/resume"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Shown):
    """The right to use one sandbox; as a context it is released at its end."""

    id: str
    number: int
    status: str
    provider: str
    environment: str
    sandbox_id: str | None
    run_id: str | None
    policy: str | None
    fence: int
    reason: str | None
    cleanup_status: str | None
    last_error: str | None
    expires_at: datetime | None
    held_until: datetime | None
    retained_until: datetime | None
    created_at: datetime
    finished_at: datetime | None
    key: str | None = None
    _wire: Wire = field(repr=False, compare=False)

    @classmethod
    def of(cls, wire: Wire, shape: Shape) -> Self:
        """Return the lease that the API shows."""
        return cls.read(shape, _wire=wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def refresh(self) -> Self:
        """Return the lease as it is now."""
        return self.of(self._wire, self._wire.get(f"leases/{self.id}"))

    def run(
        self,
        command: Sequence[str] | None = None,
        *,
        key: str | None = None,
        **fields: Unpack[RunFields],
    ) -> Run:
        """Run a command in its sandbox; runs of one lease take turns."""
        where: dict[str, str | None] = {"lease_id": self.id}
        return submit(self._wire, command, fields, where=where, key=key)

    def release(self) -> Self:
        """
        Give it back, a retained one too: its sandbox is destroyed.

        Raises:
            ConflictError: A run uses it.
        """
        return self.of(self._wire, self._wire.post(f"leases/{self.id}/release", repeat=True))

    def retain(self) -> Self:
        """Keep its sandbox: at once if it is idle, else when its run ends."""
        return self.of(self._wire, self._wire.post(f"leases/{self.id}/retain", repeat=True))
