"""
Where a run goes: what it names, or the first default that applies to it.

The chain is run → workspace → project (its label `project`) → tenant → `local`, which is made
on first use. Nothing named, or null, means: the next one. What is named by anybody and is not
there, is archived, or is another tenant's ends the chain with an error of its own code: work
never goes silently somewhere else. The choice and who made it stand in the run's first line of
history, since what is selected may change the moment after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from leasehold.domain.lifecycle import EnvironmentStatus, SelectionKind
from leasehold.domain.specs import EnvironmentSpec, RunSpec, Spec, Text
from leasehold.errors import (
    EnvironmentForeignError,
    EnvironmentInactiveError,
    EnvironmentMissingError,
    NotFoundError,
)
from leasehold.orchestrator import saving
from leasehold.store import environments, moves, selections
from leasehold.store.database import Row, Tx

LOCAL: Final = EnvironmentSpec(name="local", provider="local")
"""Where a run goes for which nobody has chosen; made on first use."""

PROJECT: Final = "project"
"""The label of a run that says to which project it belongs."""

_ORDER: Final = (SelectionKind.WORKSPACE, SelectionKind.PROJECT, SelectionKind.TENANT)


@dataclass(frozen=True, slots=True)
class Choice:
    """An environment, and who has chosen it for a run."""

    environment: Row
    by: str
    """`run`, `workspace`, `project`, `tenant`, or `local`: nobody."""

    name: str = ""
    """Of the workspace or project."""

    def told(self) -> dict[str, str]:
        """Return what history says of it; nothing of what the run itself has named."""
        if self.by == "run":
            return {}
        chosen = {"environment": str(self.environment["name"]), "chosen_by": self.by}
        return chosen | ({self.by: self.name} if self.name else {})


def choose(
    tx: Tx, spec: RunSpec, *, named: str | None, tenant_id: str, actor: str | None = None
) -> Choice:
    """
    Return the environment of a run.

    Args:
        named: What the run itself names; None: nothing.

    Raises:
        EnvironmentMissingError: What was chosen is not there; says by whom.
        EnvironmentForeignError: It is another tenant's.
        EnvironmentInactiveError: It is archived.
    """
    if named is not None:
        return Choice(usable(tx, named, tenant_id=tenant_id), "run")
    project = spec.labels.get(PROJECT)
    found = selections.applying(
        tx, tenant_id=tenant_id, workspace=spec.workspace, project=project
    )
    names = {SelectionKind.WORKSPACE: spec.workspace, SelectionKind.PROJECT: project}
    for kind in _ORDER:
        if kind.value in found:
            name = names.get(kind) or ""
            by = f"the default of {_words(kind, name)}"
            row = usable(tx, found[kind.value], tenant_id=tenant_id, by=by)
            return Choice(row, kind.value, name)
    row = saving.ensure(tx, LOCAL, tenant_id=tenant_id, actor=actor)
    check_active(row, by="nobody has chosen another one, and")
    return Choice(row, "local")


def usable(tx: Tx, name: str, *, tenant_id: str, by: str = "") -> Row:
    """
    Return an environment that takes runs.

    Args:
        by: Who has chosen it, for the message; empty: who asks.

    Raises:
        EnvironmentMissingError: It is not there.
        EnvironmentForeignError: It is another tenant's.
        EnvironmentInactiveError: It is archived.
    """
    try:
        row = environments.get(tx, name, tenant_id=tenant_id)
    except NotFoundError as error:
        if environments.find(tx, name) is not None:
            # Only who knows its id comes here; nothing else of it is told.
            text = f"environment {name} is not of this tenant"
            raise EnvironmentForeignError(_said(by, text)) from None
        raise EnvironmentMissingError(_said(by, str(error))) from None
    check_active(row, by=by)
    return row


def check_active(environment: Row, *, by: str = "") -> None:
    """
    Refuse an environment that takes no runs.

    Raises:
        EnvironmentInactiveError: It is archived.
    """
    if environment["status"] != EnvironmentStatus.ACTIVE:
        raise EnvironmentInactiveError(
            _said(by, f"environment {environment['name']} is archived")
        )


def _said(by: str, text: str) -> str:
    return f"{by}: {text}" if by.startswith("the ") else f"{by} {text}".strip()


def _words(kind: SelectionKind, name: str) -> str:
    return f"{kind.value} {name}" if name else f"the {kind.value}"


class SelectionSpec(Spec):
    """Whose default, and which environment; null: the next one of the chain."""

    kind: SelectionKind
    name: Annotated[Text, Field(max_length=1000)] = ""
    """Of the workspace or project; not of the tenant."""

    environment: Annotated[Text, Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> "SelectionSpec":
        if (self.kind is SelectionKind.TENANT) != (not self.name):
            raise ValueError("name: of a workspace or project; the tenant's has none")
        return self


def select(tx: Tx, wanted: SelectionSpec, *, tenant_id: str, actor: str) -> Row | None:
    """
    Set a default, or take it away; return it, None if there is none now.

    Raises:
        EnvironmentMissingError: There is no such environment; says which there are.
        EnvironmentForeignError: It is another tenant's.
        EnvironmentInactiveError: It is archived.
    """
    before = selections.find(tx, wanted.kind, wanted.name, tenant_id=tenant_id)
    if wanted.environment is None:
        if selections.delete(tx, wanted.kind, wanted.name, tenant_id=tenant_id):
            _record(tx, "selection.deleted", wanted, tenant_id=tenant_id, actor=actor)
        return None
    row = usable(tx, wanted.environment, tenant_id=tenant_id)
    if before is None or before["environment"] != row["name"]:
        selections.put(tx, wanted.kind, wanted.name, row["name"], tenant_id=tenant_id)
        more = {"environment": row["name"]}
        _record(tx, "selection.set", wanted, tenant_id=tenant_id, actor=actor, **more)
    return selections.find(tx, wanted.kind, wanted.name, tenant_id=tenant_id)


def _record(
    tx: Tx, event: str, wanted: SelectionSpec, *, tenant_id: str, actor: str, **more: str
) -> None:
    data: Mapping[str, Any] = {"kind": wanted.kind.value, "name": wanted.name, **more}
    moves.record(tx, (event, {**data, "actor": actor}), tenant_id=tenant_id)
