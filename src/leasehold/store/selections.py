"""SQL of selections: which environment runs go to that name none."""

from leasehold.domain.lifecycle import SelectionKind
from leasehold.store.database import Row, Tx


def applying(tx: Tx, *, tenant_id: str, workspace: str | None, project: str | None) -> Row:
    """Return the environments that a run's workspace, project and tenant select, by kind."""
    rows = tx.all(
        "SELECT kind, environment FROM selections WHERE tenant_id = :tenant AND"
        " ((kind = 'workspace' AND name = :workspace) OR (kind = 'project' AND name = :project)"
        " OR (kind = 'tenant' AND name = ''))",
        tenant=tenant_id,
        workspace=workspace or "",
        project=project or "",
    )
    return {row["kind"]: row["environment"] for row in rows}


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    """List a tenant's selections, in the order in which they are asked."""
    return tx.all(
        "SELECT s.*, e.status AS environment_status FROM selections s"
        " LEFT JOIN environments e ON e.tenant_id = s.tenant_id"
        " AND (e.name = s.environment OR e.id = s.environment)"
        " WHERE s.tenant_id = :tenant ORDER BY CASE s.kind WHEN 'workspace' THEN 1"
        " WHEN 'project' THEN 2 ELSE 3 END, s.name",
        tenant=tenant_id,
    )


def find(tx: Tx, kind: SelectionKind, name: str, *, tenant_id: str) -> Row | None:
    return tx.one(
        "SELECT * FROM selections WHERE tenant_id = :tenant AND kind = :kind AND name = :name",
        tenant=tenant_id,
        kind=kind.value,
        name=name,
    )


def put(tx: Tx, kind: SelectionKind, name: str, environment: str, *, tenant_id: str) -> None:
    tx.run(
        "INSERT INTO selections (tenant_id, kind, name, environment, created_at, updated_at)"
        " VALUES (:tenant, :kind, :name, :environment, {now}, {now})"
        " ON CONFLICT (tenant_id, kind, name)"
        " DO UPDATE SET environment = :environment, updated_at = {now}",
        tenant=tenant_id,
        kind=kind.value,
        name=name,
        environment=environment,
    )


def delete(tx: Tx, kind: SelectionKind, name: str, *, tenant_id: str) -> bool:
    """Delete one; False: there was none."""
    return bool(
        tx.run(
            "DELETE FROM selections"
            " WHERE tenant_id = :tenant AND kind = :kind AND name = :name",
            tenant=tenant_id,
            kind=kind.value,
            name=name,
        )
    )
