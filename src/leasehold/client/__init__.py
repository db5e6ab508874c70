"""The REST API for programs in Python: `Client`, and what it answers with."""

from leasehold.client.client import Client
from leasehold.client.following import Chunk
from leasehold.client.handles import Lease, Run
from leasehold.client.runs import Acted, Made, Preview
from leasehold.client.shapes import (
    Artifact,
    Environment,
    Event,
    Execution,
    Explanation,
    Host,
    Key,
    NewKey,
    Provider,
    Radius,
    Retention,
    Schedule,
    Secret,
    Tenant,
    Who,
    Worker,
)

__all__ = [
    "Acted",
    "Artifact",
    "Chunk",
    "Client",
    "Environment",
    "Event",
    "Execution",
    "Explanation",
    "Host",
    "Key",
    "Lease",
    "Made",
    "NewKey",
    "Preview",
    "Provider",
    "Radius",
    "Retention",
    "Run",
    "Schedule",
    "Secret",
    "Tenant",
    "Who",
    "Worker",
]
