"""Typed identifiers: plain strings at run time, different names to mypy."""

from typing import NewType
from uuid import UUID

from leasehold import seams

TenantId = NewType("TenantId", str)
EnvironmentId = NewType("EnvironmentId", str)
RunId = NewType("RunId", str)
LeaseId = NewType("LeaseId", str)
ExecutionId = NewType("ExecutionId", str)
HostId = NewType("HostId", str)
SessionId = NewType("SessionId", str)
WorkerId = NewType("WorkerId", str)

DEFAULT_TENANT = TenantId("default")
PLATFORM = TenantId("_platform")
"""Owns the keys of the role `root` and what they did; no tenant may be called so."""


def new_id() -> str:
    """
    Return a fresh UUIDv7 as text.

    The leading time bits only keep B-tree inserts together; nothing reads them as a date.
    """
    millis = seams.wall_ns() // 1_000_000
    value = millis << 80 | int.from_bytes(seams.entropy(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def execution_id(run: RunId, *, command: int, number: int) -> ExecutionId:
    """Return the id of one start: run + command + the number that counts starts."""
    return ExecutionId(f"{run}.{command}.{number}")


def start_number(said: str) -> int | None:
    """Return the number in the id of a start; None if it is no start of a run's command."""
    _, _, rest = said.partition(".")
    command, _, number = rest.partition(".")
    try:
        return int(number) if int(command) >= -1 else None
    except ValueError:
        return None
