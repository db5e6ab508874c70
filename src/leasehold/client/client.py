"""`Client`: the nouns of the API and their verbs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack

from leasehold.client.handles import Lease, Run, submit
from leasehold.client.shapes import Environment, Shape
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, RunFields, Variables, as_json
from leasehold.ids import new_id

URL: Final = "http://127.0.0.1:8321"
"""Where `leasehold up` serves the API."""

_PAGE: Final = 200


class Client:
    """
    Speaks with `leasehold api`; may be used by several threads, and as a context.

    Args:
        url: Where the API is; by default `LEASEHOLD_API_URL`, else this machine's.
        token: An API key; by default `LEASEHOLD_API_TOKEN`.
        timeout_s: How long one request may take, in seconds.
        tries: How often a request is sent that may be repeated (see `wire`).
        allow_plain_http: Send the token in clear text to another machine.

    Raises:
        BadInputError: The address or the token is none, or the token would be readable.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        tries: int = 6,
        allow_plain_http: bool = False,
    ) -> None:
        self._wire = Wire(
            url or os.environ.get("LEASEHOLD_API_URL") or URL,
            token or os.environ.get("LEASEHOLD_API_TOKEN") or "",
            timeout_s=timeout_s,
            tries=max(1, tries),
            allow_plain_http=allow_plain_http,
        )
        self.runs = Runs(self._wire)
        self.environments = Environments(self._wire)
        self.leases = Leases(self._wire)

    def __repr__(self) -> str:
        return f"Client({self._wire.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def run(
        self,
        command: Sequence[str] | None = None,
        *,
        environment: str | None = None,
        key: str | None = None,
        **fields: Unpack[RunFields],
    ) -> Run:
        """
        Create a run and return it at once; `wait`, `stream` or `output` it.

        Args:
            command: The words of one command; several are given as `commands`.
            environment: Its name; without it, it is `local`.
            key: An idempotency key; by default one that is made here, for our own repeats.

        Raises:
            BadInputError: A field is wrong.
            NotFoundError: There is no such environment, or run to start after.
            ConflictError: The environment is archived; the key was used with another body;
                too many runs wait (`FullError`).
        """
        where = {"environment": environment}
        return submit(self._wire, command, fields, where=where, key=key)


class Runs:
    """`client.runs`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, run_id: str) -> Run:
        """Return a run with its executions."""
        return Run.of(self._wire, self._wire.get(f"runs/{run_id}"))

    def list(
        self,
        *,
        status: Sequence[str] = (),
        environment: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """Yield runs, the newest first; pages are fetched as they are needed."""
        query = {
            "status": list(status),
            "environment": environment,
            "label": [f"{name}={value}" for name, value in (labels or {}).items()],
        }
        return (Run.of(self._wire, shape) for shape in _items(self._wire, "runs", query))


class Environments:
    """`client.environments`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        name: str,
        *,
        provider: str,
        config: Mapping[str, Any] | None = None,
        env: Variables | None = None,
        policy: str | None = None,
        description: str | None = None,
        max_concurrent: int | None = None,
        requires: Mapping[str, str] | None = None,
        idle_ttl: Duration | None = None,
        retained_ttl: Duration | None = None,
    ) -> Environment:
        """Save a new environment; its config is checked against the provider's schema."""
        limits = None if max_concurrent is None else {"max_concurrent": max_concurrent}
        given = {
            "name": name,
            "provider": provider,
            "config": config,
            "env": env,
            "policy": policy,
            "description": description,
            "limits": limits,
            "requires": requires,
            "idle_ttl_s": idle_ttl,
            "retained_ttl_s": retained_ttl,
        }
        asked = {key: as_json(value) for key, value in given.items() if value is not None}
        return Environment.read(self._wire.post("environments", asked))

    def get(self, name: str) -> Environment:
        """Return an environment and how much is under way in it."""
        return Environment.read(self._wire.get(f"environments/{name}"))

    def list(
        self, *, status: str | None = None, provider: str | None = None
    ) -> Iterator[Environment]:
        """Yield environments, by name."""
        query = {"status": status, "provider": provider}
        return map(Environment.read, _items(self._wire, "environments", query, pages=False))

    def archive(self, name: str) -> Environment:
        """Take no new runs in it; what runs goes on, idle leases end."""
        return Environment.read(self._wire.post(f"environments/{name}/archive"))

    def unarchive(self, name: str) -> Environment:
        """Take runs in it again."""
        return Environment.read(self._wire.post(f"environments/{name}/unarchive"))

    def delete(self, name: str, *, force: bool = False) -> None:
        """
        Delete it.

        Raises:
            ConflictError: Runs or leases are in it, and `force` is not given; says how many.
        """
        self._wire.send("DELETE", f"environments/{name}", query={"force": force or None})


class Leases:
    """`client.leases`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self, environment: str, *, ttl: Duration | None = None, key: str | None = None
    ) -> Lease:
        """
        Make a sandbox of one's own; runs may name it at once, and wait until it is there.

        Args:
            environment: Its name.
            ttl: How long it is held.
            key: An idempotency key; by default one that is made here, for our own repeats.

        Raises:
            NotFoundError: There is no such environment.
            ConflictError: It is archived, or no host can take it now; the key was used with
                another body.
        """
        asked = {"environment": environment} | ({} if ttl is None else {"ttl_s": as_json(ttl)})
        return Lease.of(self._wire, self._wire.post("leases", asked, key=key or new_id()))

    def get(self, lease_id: str) -> Lease:
        """Return a lease."""
        return Lease.of(self._wire, self._wire.get(f"leases/{lease_id}"))

    def list(self, *, status: Sequence[str] = (), live: bool = False) -> Iterator[Lease]:
        """Yield leases, the newest first."""
        query = {"status": list(status), "live": live or None}
        return (Lease.of(self._wire, shape) for shape in _items(self._wire, "leases", query))


def _items(
    wire: Wire, path: str, query: Mapping[str, Any], *, pages: bool = True
) -> Iterator[Shape]:
    """Yield the items of a list, page after page."""
    more: dict[str, Any] = {"limit": _PAGE} if pages else {}
    while True:
        page = wire.get(path, **query, **more)
        yield from page["items"]
        if page["next"] is None:
            return
        more["cursor"] = page["next"]
