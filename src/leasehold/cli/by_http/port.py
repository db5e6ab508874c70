"""The way over HTTP: an address and a key, and whatever the deployment behind it is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

from leasehold.cli import tenancy
from leasehold.cli.by_http.places import HttpEnvironments, HttpFleet, HttpLeases
from leasehold.cli.by_http.rights import (
    HttpKeys,
    HttpRetention,
    HttpSchedules,
    HttpSecrets,
    HttpTenants,
)
from leasehold.cli.by_http.runs import HttpRuns
from leasehold.cli.by_http.telling import HttpSelections, HttpWebhooks
from leasehold.cli.codes import say
from leasehold.cli.options import patience
from leasehold.cli.ports import Shape
from leasehold.client import Client
from leasehold.client.wire import Patience, is_readable
from leasehold.errors import ForbiddenError, NotFoundError
from leasehold.ids import DEFAULT_TENANT
from leasehold.settings import Settings


class HttpPort:
    """An API, asked by one command with one key."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.runs = HttpRuns(client)
        self.leases = HttpLeases(client)
        self.environments = HttpEnvironments(client)
        self.schedules = HttpSchedules(client)
        self.selections = HttpSelections(client)
        self.webhooks = HttpWebhooks(client)
        self.secrets = HttpSecrets(client)
        self.keys = HttpKeys(client)
        self.tenants = HttpTenants(client)
        self.fleet = HttpFleet(client)
        self.retention = HttpRetention(client)

    @property
    def tenant(self) -> str:
        return tenancy.named() or DEFAULT_TENANT

    def check_tenant(self) -> None:
        """
        Refuse to work on other rows than those that were named: the key says whose they are.

        Raises:
            ForbiddenError: The key is of another tenant.
        """
        named = tenancy.named()
        if named is None or not tenancy.is_tenants():
            return
        who = self._client.who()
        if who.tenant not in {None, named}:
            raise ForbiddenError(
                f"this API key is of tenant {who.tenant}, not of {named}: over HTTP the key"
                " says whose rows (--tenant, LEASEHOLD_TENANT)"
            )

    def resolve(self, noun: str, text: str) -> str:
        found = self._client.ids(noun, text)
        if text in found:
            return text
        if not found:
            raise NotFoundError(f"there is no {noun} {text}")
        if len(found) > 1:
            some = ", ".join(found[:3])
            raise NotFoundError(f"{noun} {text}: several ids begin or end so: {some}, …")
        return found[0]

    def explain(self, text: str) -> Shape:
        return dict(self._client.explain(text).raw)

    def activity(
        self,
        *,
        platform: bool,
        actor: str | None,
        noun: str | None,
        since_us: int | None,
        until_us: int | None,
        limit: int,
    ) -> Sequence[Shape]:
        if platform and self._client.who().tenant is not None:
            raise ForbiddenError("this key is of a tenant; --root needs a key of the platform")
        found = self._client.activity(
            actor=actor,
            noun=noun,
            since=_moment(since_us),
            until=_moment(until_us),
            limit=limit,
        )
        return [dict(one.raw) for one in found]

    def now_us(self) -> int:
        """Return the server's time, to the second, as its last answer said."""
        if self._client.date is None:
            self._client.who()
        date = self._client.date
        return int(parsedate_to_datetime(date).timestamp() * 1_000_000) if date else 0

    def is_served(self) -> bool:
        return True

    def keep(self, file: BinaryIO, *, digest: str, size: int) -> None:
        self._client.runs.keep(file, digest=digest, size=size)

    def bring_home(self, run_id: str, home: Path) -> int:
        from leasehold.cli import carrying

        found = [dict(one.raw) for one in self._client.runs.artifacts(run_id)]
        lines = [one for one in found if one["kind"] in {"changed", "deleted"}]
        paths = {one["sha256"]: one["path"] for one in lines if one["sha256"] is not None}

        def fetch(digest: str, file: BinaryIO) -> object:
            return self._client.runs.fetch(run_id, paths[digest], file, kind="changed")

        return carrying.bring_home(
            home, [one | {"mode": int(one["mode"], 8)} for one in lines], fetch
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _moment(us: int | None) -> datetime | None:
    return None if us is None else datetime.fromtimestamp(us / 1e6, UTC)


class _Elsewhere:
    """What runs stand on behind an API: not ours to keep."""

    is_own = False

    def keep(self) -> None:
        """Somebody else does."""


class HttpWay:
    """Opens the API at an address, with a key that is in no argument and no message."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token

    @cached_property
    def settings(self) -> Settings:
        from leasehold.cli.door import read_settings

        return read_settings()

    def open(self) -> HttpPort:
        from leasehold.cli.door import read_settings

        read_settings()  # and its log, which would show requests
        told: list[str] = []

        def tell(why: str) -> None:
            if not told:
                told.append(why)
                say(f"{why}; trying for {patience.get():.0f} s")

        if is_readable(self._url):
            say(f"{self._url}: the API key goes there in clear text; use https://")
        client = Client(
            self._url,
            self._token,
            allow_plain_http=True,
            patience=Patience(seconds=patience.get(), told=tell),
        )
        port = HttpPort(client)
        try:
            port.check_tenant()
        except BaseException:
            client.close()
            raise
        return port

    def need_stack(self, what: str) -> None:
        """Nothing to refuse: whether somebody works there, the API's deployment knows."""

    @contextmanager
    def footing(self) -> Iterator[_Elsewhere]:
        yield _Elsewhere()
