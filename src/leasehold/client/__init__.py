"""The REST API for programs in Python: `Client`, and what it answers with."""

from leasehold.client.client import Client
from leasehold.client.following import Chunk
from leasehold.client.handles import Lease, Run
from leasehold.client.shapes import Environment, Event, Execution

__all__ = ["Chunk", "Client", "Environment", "Event", "Execution", "Lease", "Run"]
