"""`client.selections`: where runs go that name no environment."""

from collections.abc import Iterator

from leasehold.client.paging import items
from leasehold.client.shapes import Selection
from leasehold.client.wire import Wire


class Selections:
    """`client.selections`: of a workspace, of a project, or (with neither) of the tenant."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self) -> Iterator[Selection]:
        """Yield them in the order in which they are asked."""
        return map(Selection.read, items(self._wire, "selections", pages=False))

    def set(
        self,
        environment: str | None,
        *,
        workspace: str | None = None,
        project: str | None = None,
    ) -> Selection:
        """Set a default; None takes it away, and the next one of the chain applies."""
        if workspace is not None:
            return self.select("workspace", workspace, environment)
        if project is not None:
            return self.select("project", project, environment)
        return self.select("tenant", "", environment)

    def select(self, kind: str, name: str, environment: str | None) -> Selection:
        """Set the default of what is named as the API names it."""
        body = {"kind": kind, "name": name, "environment": environment}
        return Selection.read(self._wire.ask("PUT", "selections", body=body, repeat=True))
