"""`client.runs`: find runs, make many at once, and act on many at once."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal
from urllib.parse import quote

from leasehold.client import answers, following
from leasehold.client.following import Chunk
from leasehold.client.handles import Run
from leasehold.client.paging import items, part
from leasehold.client.shapes import Artifact, Shape, Shown
from leasehold.client.wire import Wire
from leasehold.domain.fields import RunFields, as_json, body
from leasehold.errors import ApiUnavailableError, LeaseholdError
from leasehold.ids import new_id

Action = Literal["cancel", "retry"]
_BATCH: Final = 1000
_PLACE: Final = ("environment", "lease_id", "key")


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one run of a batch."""

    outcome: str
    """As the API says it; docs/api.md."""

    run: Run | None
    error: LeaseholdError | None


@dataclass(frozen=True, slots=True)
class Acted:
    """What became of one run of many that were cancelled or retried."""

    id: str
    run_id: str | None
    """The run that it is now about: of a retry the new one; None: it was refused."""

    status: str | None
    error: LeaseholdError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview(Shown):
    """What an action on many runs would be about; `do` does it."""

    action: Action
    count: int
    more: bool
    """There are more than are counted."""

    ids: Sequence[str]
    """Some of them, the newest first."""

    mark: str | None
    _filter: Shape
    _wire: Wire

    def do(self) -> Iterator[Acted]:
        """
        Do it, page by page, to the runs that there were when it was asked for.

        A page whose answer is lost is asked for again: the same mark does it once.
        """
        mark = self.mark
        while mark is not None:
            asked = {"action": self.action, "filter": self._filter, "mark": mark}
            page = self._wire.post("runs/bulk", asked, repeat=True)
            for item in page["items"]:
                error = item.get("error")
                yield Acted(
                    item["id"],
                    item.get("run_id"),
                    item.get("status"),
                    None if error is None else answers.error_in(error),
                )
            mark = page["mark"]


class Runs:
    """`client.runs`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, run_id: str) -> Run:
        """Return a run with its executions."""
        return Run.of(self._wire, self._wire.get(f"runs/{part(run_id)}"))

    def list(
        self,
        *,
        status: Sequence[str] = (),
        environment: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Run]:
        """Yield runs, the newest first; pages are fetched as they are needed."""
        query = {
            "status": list(status),
            "environment": environment,
            "label": [f"{name}={value}" for name, value in (labels or {}).items()],
        }
        found = items(self._wire, "runs", query, limit=limit)
        return (Run.of(self._wire, shape) for shape in found)

    def fetch(self, run_id: str, path: str, file: BinaryIO, *, kind: str = "artifact") -> str:
        """
        Write a file that a run left into one that is open here; return its SHA-256.

        Args:
            run_id: The run's id.
            path: As `artifacts` has it.
            file: Open for bytes.
            kind: `artifact`, or `changed`: a file of its workspace as the run left it.

        Raises:
            ApiUnavailableError: It broke off in the middle, or is not what was sent.
        """
        where = f"runs/{part(run_id)}/artifacts/{quote(path)}"
        seen = hashlib.sha256()

        def write(data: bytes) -> None:
            seen.update(data)
            file.write(data)

        digest = self._wire.save(where, {"kind": kind}, write)
        if seen.hexdigest() != digest:
            raise ApiUnavailableError(f"{path}: what came is not what was sent")
        return digest

    def keep(self, file: BinaryIO, *, digest: str, size: int) -> None:
        """
        Send bytes that a run which is created next names by their SHA-256.

        Args:
            file: Open for bytes, and seekable.
            digest: Their SHA-256, in hex.
            size: How many.
        """
        self._wire.put(f"blobs/{digest}", file, size=size)

    def create(self, body: Mapping[str, Any], *, key: str | None = None) -> Run:
        """Create a run from a body as `POST /runs` takes it; mostly `Client.run` is meant."""
        return Run.of(self._wire, self._wire.post("runs", body, key=key or new_id()))

    def cancel(self, run_id: str) -> Run:
        """Ask a run to end, without a look at it before."""
        path = f"runs/{part(run_id)}/cancel"
        return Run.of(self._wire, self._wire.post(path, repeat=True))

    def follow(self, run_id: str) -> Iterator[Chunk]:
        """Yield output until the run is over; unlike `Run.stream` also while it is parked."""
        return following.Following(
            self._wire, run_id, streams=("stdout", "stderr"), rests=False
        ).chunks()

    def artifacts(self, run_id: str) -> Iterator[Artifact]:
        """Yield what a run left: its artifacts, and what it changed in its workspace."""
        path = f"runs/{part(run_id)}/artifacts"
        return map(Artifact.read, items(self._wire, path, pages=False))

    def batch(self, runs: Sequence[RunFields | Mapping[str, Any]]) -> Sequence[Made]:
        """
        Create up to 1,000 runs in one transaction; what is wrong with one is its answer only.

        Args:
            runs: Each with `commands` and what else a run has; its place as `environment` or
                `lease_id`, and its own `key` if it has one.
        """
        if len(runs) > _BATCH:
            found = self.batch(runs[:_BATCH])
            return [*found, *self.batch(runs[_BATCH:])]
        asked = [_item(run) for run in runs]
        # Each has a key, so the whole may be sent again when its answer is lost.
        page = self._wire.post("runs/batch", {"runs": asked}, repeat=True)
        return [self._made(item) for item in page["items"]]

    def _made(self, item: Shape) -> Made:
        run = Run.of(self._wire, item["run"]) if "run" in item else None
        error = answers.error_in(item["error"]) if "error" in item else None
        return Made(item["outcome"], run, error)

    def preview(
        self,
        action: Action,
        *,
        status: Sequence[str] = (),
        environment: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Preview:
        """Count what `cancel` or `retry` of all runs that are found would be about."""
        chosen: dict[str, Any] = {
            "status": list(status),
            "label": [f"{name}={value}" for name, value in (labels or {}).items()],
        }
        if environment is not None:
            chosen["environment"] = environment
        asked = {"action": action, "filter": chosen, "dry_run": True}
        shape = self._wire.post("runs/bulk", asked, repeat=True)
        return Preview.read(shape, action=action, _filter=chosen, _wire=self._wire)


def _item(run: RunFields | Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(run)
    where = {name: fields.pop(name) for name in _PLACE if name in fields}
    argv = fields.pop("command", None)
    more: RunFields = fields  # type: ignore[assignment]  # the API checks its fields
    return {**body(argv, more), **as_json(where), "key": where.get("key") or new_id()}
