"""The link that ``leasehold up`` prints: whoever opens it first is signed in to the monitor."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leasehold.settings import Settings


def link(settings: "Settings", api: str) -> str | None:
    """Return a link to a home's monitor that works once, soon; None if it serves no API."""
    from leasehold.cli.tenancy import tenant_of
    from leasehold.orchestrator import signing
    from leasehold.store.database import Database

    if not api:
        return None
    database = Database(settings.database_address)
    try:
        with database.write("cli.monitor.link") as tx:
            secret = signing.make_link(tx, tenant_id=tenant_of(settings), actor="cli")
    finally:
        database.close()
    return f"{api}/monitor/sign-in?link={secret}"
