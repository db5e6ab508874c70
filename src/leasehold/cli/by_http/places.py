"""Leases, environments, and who serves them, over HTTP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from leasehold.cli.naming import the_host
from leasehold.cli.ports import Shape
from leasehold.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from leasehold.client import Client
    from leasehold.domain.specs import EnvironmentSpec
    from leasehold.orchestrator.changing import EnvironmentChange
    from leasehold.orchestrator.probing import DraftSpec

_LONGEST_S: Final = 60.0
"""What the API lets a request wait for workers; whoever asked for more is told then."""


@contextmanager
def consent_by(option: str, name: str) -> Iterator[None]:
    """Let what the API wants to be told be said in the words of an option."""
    try:
        yield
    except ConflictError as error:
        words = str(error).replace(f"?confirm={name}", option)
        raise type(error)(words) from None


class HttpLeases:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def list(self, *, statuses: Sequence[str], live: bool, limit: int) -> list[Shape]:
        found = self._client.leases.list(status=statuses, live=live, limit=limit)
        return [dict(lease.raw) for lease in found]

    def show(self, lease_id: str) -> Shape:
        return dict(self._client.leases.get(lease_id).raw)

    def create(self, environment: str, *, hold_for: timedelta, key: str | None) -> Shape:
        return dict(self._client.leases.create(environment, ttl=hold_for, key=key).raw)

    def give_back(self, lease_id: str) -> Shape:
        return dict(self._client.leases.get(lease_id).release().raw)

    def retain(self, lease_id: str) -> Shape:
        return dict(self._client.leases.get(lease_id).retain().raw)


class HttpEnvironments:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.environments.list()]

    def show(self, name: str) -> Shape:
        return dict(self._client.environments.get(name).raw)

    def create(self, spec: "EnvironmentSpec", *, wait_s: float, unchecked: bool) -> Shape:
        body: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
        wait_s = min(wait_s, _LONGEST_S)
        places = self._client.environments
        return dict(places.save(body, wait_s=wait_s, unchecked=unchecked).raw)

    def ensure(self, spec: "EnvironmentSpec") -> Shape:
        try:
            return self.show(spec.name)
        except NotFoundError:
            pass
        try:
            return self.create(spec, wait_s=_LONGEST_S, unchecked=True)
        except ConflictError:
            return self.show(spec.name)  # somebody else has made it meanwhile

    def change(
        self, name: str, wanted: "EnvironmentChange", *, wait_s: float, unchecked: bool
    ) -> Shape:
        body: dict[str, Any] = wanted.model_dump(mode="json", exclude_unset=True)
        wait_s = min(wait_s, _LONGEST_S)
        places = self._client.environments
        return dict(places.change(name, body, wait_s=wait_s, unchecked=unchecked).raw)

    def probe(self, name: str | None, draft: "DraftSpec | None", *, wait_s: float) -> Shape:
        wait_s, places = min(wait_s, _LONGEST_S), self._client.environments
        if name is not None:
            return dict(places.probe(name, wait_s=wait_s).raw)
        assert draft is not None
        body: dict[str, Any] = draft.model_dump(mode="json", exclude_unset=True)
        return dict(places.probe_draft(body, wait_s=wait_s).raw)

    def archive(self, name: str, *, undo: bool) -> Shape:
        places = self._client.environments
        return dict((places.unarchive(name) if undo else places.archive(name)).raw)

    def radius(self, name: str) -> Shape:
        places = self._client.environments
        return {"name": places.get(name).name, "deleted": False, **places.radius(name).raw}

    def delete(self, name: str, *, force: bool) -> Shape:
        with consent_by("--yes", name):
            return dict(self._client.environments.delete(name, force=force))


class HttpFleet:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def providers(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.providers.list()]

    def provider(self, key: str) -> Shape:
        return dict(self._client.providers.get(key).raw)

    def workers(self, *, gone: bool) -> list[Shape]:
        return [dict(one.raw) for one in self._client.workers.list(gone=gone)]

    def hosts(self) -> list[Shape]:
        # What hosts have under way is shown to keys of the platform only.
        return [{**one.raw, "leases": one.leases} for one in self._client.hosts.list()]

    def host_of(self, text: str) -> str:
        """
        Return the id of the host that `text` names: its name, its id, or one of its workers.

        Raises:
            NotFoundError: There is none, or several.
        """
        found = {h.id for h in self._client.hosts.list() if text == h.name or _like(h.id, text)}
        workers = self._client.workers.list(gone=True)
        found |= {worker.host_id for worker in workers if _like(worker.id, text)}
        return the_host(text, sorted(found))

    def drain(self, host_id: str) -> Shape:
        return dict(self._client.hosts.drain(host_id).raw)

    def forget(self, host_id: str, *, force: bool) -> Shape:
        with consent_by("--yes", host_id):
            return dict(self._client.hosts.forget(host_id, force=force))


def _like(row_id: str, text: str) -> bool:
    return bool(text) and (row_id.startswith(text) or row_id.endswith(text))
