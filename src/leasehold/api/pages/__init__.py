"""The monitor: pages for people, over the same functions as the routes for programs."""

from typing import Final

from leasehold.api.pages import (
    activity,
    entry,
    failures,
    fleet,
    leases,
    overview,
    place_forms,
    places,
    queues,
    run,
    runs,
    schedules,
    starting,
    trouble,
)

PARTS: Final = tuple(
    part.router
    for part in (
        entry,
        overview,
        runs,
        starting,
        run,
        failures,
        trouble,
        queues,
        leases,
        fleet,
        place_forms,
        places,
        schedules,
        activity,
    )
)
