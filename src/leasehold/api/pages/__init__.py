"""The monitor: pages for people, over the same functions as the routes for programs."""

from typing import Final

from leasehold.api.pages import (
    entry,
    failures,
    fleet,
    leases,
    overview,
    places,
    run,
    runs,
    starting,
    trouble,
)

PARTS: Final = tuple(
    part.router
    for part in (entry, overview, runs, starting, run, failures, trouble, leases, fleet, places)
)
