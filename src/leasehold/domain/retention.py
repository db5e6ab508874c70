"""How long what is over is kept: for each tenant, two durations."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from leasehold.domain.durations import parse_duration
from leasehold.domain.specs import Spec

DAY_S: Final = 86_400
LEAST_S: Final = 3600
"""Shorter, and somebody who waits for a run would not find its result."""

KEY_KEPT_S: Final = DAY_S
"""So long after its run's end an idempotency key still finds that run, whatever is set."""

FLEET_KEPT_S: Final = 7 * DAY_S
"""So long the rows of workers and sessions that are over are kept, for all tenants."""

DELIVERY_KEPT_S: Final = 30 * DAY_S
"""So long it is shown what a webhook was sent; with its run it goes at the latest."""

BLOB_GRACE_S: Final = DAY_S
"""
An object that nothing names is deleted so long after it was put, or was last named.

Longer than any time between a put and the row that names it.
"""

NEVER: Final = "never"


def _kept(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() == NEVER:
        return None
    return parse_duration(value)


Kept = Annotated[
    Annotated[float, Field(ge=LEAST_S, le=36_600 * DAY_S, allow_inf_nan=False)] | None,
    BeforeValidator(_kept),
]
"""Seconds or a duration; None and ``"never"``: never deleted."""


class Retention(Spec):
    """How long after their end; None: for ever."""

    runs_s: Kept = 90.0 * DAY_S
    """Runs with all that belongs to them, leases, and lines of history."""

    output_s: Kept = 30.0 * DAY_S
    """Output and artifacts; they go with their run at the latest."""


DEFAULT: Final = Retention()
