"""`Client`: the nouns of the API and their verbs."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, Unpack

from leasehold.client.environments import Environments
from leasehold.client.fleet import Hosts, Providers, Workers
from leasehold.client.handles import Run, submit
from leasehold.client.leases import Leases
from leasehold.client.paging import items, part
from leasehold.client.rights import Keys, Retentions, Tenants
from leasehold.client.runs import Runs
from leasehold.client.schedules import Schedules
from leasehold.client.secrets import Secrets
from leasehold.client.selections import Selections
from leasehold.client.shapes import Deed, Explanation, Who
from leasehold.client.webhooks import Webhooks
from leasehold.client.wire import Patience, Wire
from leasehold.domain.fields import RunFields

URL: Final = "http://127.0.0.1:8321"
"""Where `leasehold up` serves the API."""


class Client:
    """
    Speaks with `leasehold api`; may be used by several threads, and as a context.

    Args:
        url: Where the API is; by default `LEASEHOLD_API_URL`, else this machine's.
        token: An API key; by default `LEASEHOLD_API_TOKEN`.
        timeout_s: How long one request may take, in seconds.
        tries: How often a request is sent that may be repeated (see `wire`).
        allow_plain_http: Send the token in clear text to another machine.
        patience: Instead of `tries`: for how long a person waits.

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
        patience: Patience | None = None,
    ) -> None:
        self._wire = Wire(
            url or os.environ.get("LEASEHOLD_API_URL") or URL,
            token or os.environ.get("LEASEHOLD_API_TOKEN") or "",
            timeout_s=timeout_s,
            tries=max(1, tries),
            allow_plain_http=allow_plain_http,
            patience=patience,
        )
        self.runs = Runs(self._wire)
        self.environments = Environments(self._wire)
        self.leases = Leases(self._wire)
        self.schedules = Schedules(self._wire)
        self.selections = Selections(self._wire)
        self.webhooks = Webhooks(self._wire)
        self.secrets = Secrets(self._wire)
        self.providers = Providers(self._wire)
        self.workers = Workers(self._wire)
        self.hosts = Hosts(self._wire)
        self.keys = Keys(self._wire)
        self.tenants = Tenants(self._wire)
        self.retention = Retentions(self._wire)

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

    def who(self) -> Who:
        """Return whom the token speaks for."""
        return Who.read(self._wire.get("me"))

    def explain(self, row_id: str) -> Explanation:
        """Say why a run or a lease waits: one reason, what would change it, and when."""
        return Explanation.read(self._wire.get(f"explain/{part(row_id)}"))

    def activity(
        self,
        *,
        actor: str | None = None,
        noun: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Deed]:
        """
        Yield who has changed what, the newest first.

        Args:
            actor: Only theirs: `key:ID`, `cli`, `schedule:NAME`.
            noun: Only of `environment`, `key`, `lease`, `secret`, ….
            since: From then on, with its time zone.
            until: Before then.
            limit: At most so many.
        """
        query = {
            "actor": actor,
            "noun": noun,
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
        }
        return map(Deed.read, items(self._wire, "activity", query, limit=limit))

    def ids(self, noun: str, text: str) -> Sequence[str]:
        """Return a few ids of runs (`run`) or leases (`lease`) that begin or end so."""
        return tuple(self._wire.get("ids", noun=noun, like=text)["items"])

    @property
    def date(self) -> str | None:
        """The server's clock in its last answer, as HTTP writes it."""
        return self._wire.date
