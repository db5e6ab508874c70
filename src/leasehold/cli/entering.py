"""
Which door a command takes: SQL, or REST if an address and a key are in the environment.

Both must be set: programs and sandboxes have the address alone, and mean nothing by it.
"""

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from leasehold.cli.ports import Port, Way

URL: Final = "LEASEHOLD_API_URL"
TOKEN: Final = "LEASEHOLD_API_TOKEN"  # noqa: S105  its name


def is_over_http() -> bool:
    """Return whether commands of this process go to the REST API."""
    return bool(os.environ.get(URL) and os.environ.get(TOKEN))


def way() -> "Way":
    """Return the way to the deployment that is meant."""
    if is_over_http():
        from leasehold.cli.by_http.port import HttpWay

        return HttpWay(os.environ[URL], os.environ[TOKEN])
    from leasehold.cli.by_sql.port import SqlWay

    return SqlWay()


def enter() -> "Port":
    """Open the door."""
    return way().open()
