"""`client.environments`: the named places where work may run."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import given, items, part
from leasehold.client.shapes import Environment, Radius
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, Variables, as_json


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
        asked = given(
            name=name,
            provider=provider,
            config=config,
            env=env,
            policy=policy,
            description=description,
            limits=limits,
            requires=requires,
            idle_ttl_s=idle_ttl,
            retained_ttl_s=retained_ttl,
        )
        return self.save(as_json(asked))

    def save(self, body: Mapping[str, Any]) -> Environment:
        """Save a new environment from a body as the API takes it."""
        return Environment.read(self._wire.post("environments", body))

    def get(self, name: str) -> Environment:
        """Return an environment and how much is under way in it."""
        return Environment.read(self._wire.get(f"environments/{part(name)}"))

    def list(
        self, *, status: str | None = None, provider: str | None = None
    ) -> Iterator[Environment]:
        """Yield environments, by name."""
        query = {"status": status, "provider": provider}
        return map(Environment.read, items(self._wire, "environments", query, pages=False))

    def change(self, name: str, fields: Mapping[str, Any]) -> Environment:
        """
        Merge fields into an environment: None removes, what is not named stays.

        Args:
            fields: As the body of the API's PATCH has them: `config`, `env`, `limits`, ….
        """
        path = f"environments/{part(name)}"
        return Environment.read(self._wire.ask("PATCH", path, body=as_json(fields)))

    def radius(self, name: str) -> Radius:
        """Return what a change or a deletion would touch."""
        return Radius.read(self._wire.get(f"environments/{part(name)}/blast-radius"))

    def archive(self, name: str) -> Environment:
        """Take no new runs in it; what runs goes on, idle leases end."""
        return self._moved(name, "archive")

    def unarchive(self, name: str) -> Environment:
        """Take runs in it again."""
        return self._moved(name, "unarchive")

    def _moved(self, name: str, how: str) -> Environment:
        path = f"environments/{part(name)}/{how}"
        return Environment.read(self._wire.post(path, repeat=True))

    def delete(self, name: str, *, force: bool = False) -> Mapping[str, Any]:
        """
        Delete it; return its id and how much was under way in it.

        Raises:
            ConflictError: Runs or leases are in it, and `force` is not given; says how many.
        """
        consent = {"confirm": name if force else None}
        found: Mapping[str, Any] = self._wire.ask(
            "DELETE", f"environments/{part(name)}", query=consent
        )
        return found
