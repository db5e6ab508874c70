"""`client.environments`: the named places where work may run."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import given, items, part
from leasehold.client.shapes import Environment, Probe, Radius
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
        wait_s: float | None = None,
        unchecked: bool = False,
    ) -> Environment:
        """
        Save a new environment; its config is checked by schema, then by a worker's provider.

        Args:
            name: How runs name it.
            provider: The key of the provider that makes its sandboxes.
            config: What that provider is to be told.
            env: Variables of all its runs.
            policy: When its sandboxes are used again.
            description: For people.
            max_concurrent: Sandboxes of it at once.
            requires: Labels that its hosts must have.
            idle_ttl: Of an idle lease.
            retained_ttl: Of a retained one.
            wait_s: For a worker that is ready, and its answer.
            unchecked: Ask no worker.
        """
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
        return self.save(as_json(asked), wait_s=wait_s, unchecked=unchecked)

    def save(
        self, body: Mapping[str, Any], *, wait_s: float | None = None, unchecked: bool = False
    ) -> Environment:
        """Save a new environment from a body as the API takes it."""
        return Environment.read(self._checked("POST", "environments", body, wait_s, unchecked))

    def _checked(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        wait_s: float | None,
        unchecked: bool,  # noqa: FBT001  as it came
    ) -> Any:
        query = {"wait_s": wait_s, "unchecked": unchecked or None}
        return self._wire.ask(method, path, body=body, query=query, more_s=wait_s or 0.0)

    def get(self, name: str) -> Environment:
        """Return an environment and how much is under way in it."""
        return Environment.read(self._wire.get(f"environments/{part(name)}"))

    def list(
        self, *, status: str | None = None, provider: str | None = None
    ) -> Iterator[Environment]:
        """Yield environments, by name."""
        query = {"status": status, "provider": provider}
        return map(Environment.read, items(self._wire, "environments", query, pages=False))

    def change(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        wait_s: float | None = None,
        unchecked: bool = False,
    ) -> Environment:
        """
        Merge fields into an environment: None removes, what is not named stays.

        Args:
            name: Its name or its id.
            fields: As the body of the API's PATCH has them: `config`, `env`, `limits`, ….
            wait_s: For a worker that is ready, and its answer.
            unchecked: Ask no worker what it says of the config.
        """
        path, asked = f"environments/{part(name)}", as_json(fields)
        return Environment.read(self._checked("PATCH", path, asked, wait_s, unchecked))

    def probe(self, name: str, *, wait_s: float | None = None) -> Probe:
        """Make one new sandbox of an environment, look into it, destroy it, and say how."""
        return self._probed(f"environments/{part(name)}/probe", None, wait_s)

    def probe_draft(self, draft: Mapping[str, Any], *, wait_s: float | None = None) -> Probe:
        """
        Try an environment that is not saved, with one's own secrets and limits.

        Args:
            draft: As the API takes it: `provider`, `config`, `env`, `requires`.
            wait_s: For all of it; then its lease says what becomes of it.
        """
        return self._probed("environments/probe", as_json(dict(draft)), wait_s)

    def _probed(self, path: str, body: Any, wait_s: float | None) -> Probe:
        asked = {"wait_s": wait_s}
        shape = self._wire.ask("POST", path, body=body, query=asked, more_s=wait_s or 30.0)
        return Probe.read(shape, warnings=tuple(shape.get("warnings", ())))

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
