"""Runs, over HTTP."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from leasehold.cli import heeding
from leasehold.cli.by_http.following import HttpFollower
from leasehold.cli.ports import Shape, Sink

if TYPE_CHECKING:
    from leasehold.client import Client
    from leasehold.orchestrator.extending import ExtendSpec
    from leasehold.orchestrator.submit import Request

_DEBT_S: Final = 0.2


class HttpRuns:
    def __init__(self, client: "Client") -> None:
        self._client = client
        self._asked_at = 0.0

    def list(
        self,
        *,
        statuses: Sequence[str],
        environment: str | None,
        labels: Mapping[str, str],
        limit: int,
    ) -> list[Shape]:
        found = self._client.runs.list(
            status=statuses, environment=environment, labels=labels, limit=limit
        )
        return [dict(run.raw) for run in found]

    def show(self, run_id: str) -> Shape:
        return dict(self._client.runs.get(run_id).raw)

    def submit(self, request: "Request") -> Shape:
        """Submit it; Ctrl-C waits for the answer, which has the run's id."""
        body: dict[str, Any] = request.spec.model_dump(mode="json", exclude_unset=True)
        if request.lease_id is not None:
            body["lease_id"] = request.lease_id
        elif request.environment is not None:  # else the API chooses, as SQL does
            body["environment"] = request.environment
        if request.after:
            body["after"] = [one.model_dump(mode="json") for one in request.after]
        if request.visit:
            body["visit"] = True
        with heeding.unbroken():
            return dict(self._client.runs.create(body, key=request.key).raw)

    def cancel(self, run_id: str, *, why: str = "") -> Shape:
        del why  # history has the key that asked
        with heeding.unbroken():
            return dict(self._client.runs.cancel(run_id).raw)

    def retry(self, run_id: str, *, key: str) -> Shape:
        new = self._client.runs.get(run_id).retry(key=key)
        return self.show(new.id)

    def resume(self, run_id: str) -> Shape:
        return dict(self._client.runs.get(run_id).resume().raw)

    def extend(self, run_id: str, more: "ExtendSpec") -> Shape:
        run = self._client.runs.get(run_id)
        return dict(run.extend(deadline=more.deadline_s, timeout=more.timeout_s).raw)

    def artifacts(self, run_id: str) -> Sequence[Shape]:
        return [dict(one.raw) for one in self._client.runs.artifacts(run_id)]

    def fetch(self, run_id: str, line: Shape, file: BinaryIO) -> None:
        self._client.runs.fetch(run_id, line["path"], file, kind=line["kind"])

    def follower(
        self, run_id: str, *, sink: Sink | None, live: bool = True, command: int | None = None
    ) -> HttpFollower:
        return HttpFollower(self._client, run_id, sink=sink, live=live, command=command)

    def debt(self, run_id: str) -> Shape:
        # Asked in a loop; each time is two requests.
        time.sleep(max(0.0, self._asked_at + _DEBT_S - time.monotonic()))
        self._asked_at = time.monotonic()
        lease_id = self._client.runs.get(run_id).lease_id
        if lease_id is None:
            return {}
        lease = self._client.leases.get(lease_id).raw
        return {
            "lease_id": lease_id,
            "lease_status": lease["status"],
            "lease_mode": lease["mode"],
            "last_error": lease["last_error"],
            "sandbox_id": lease["sandbox_id"],
        }
