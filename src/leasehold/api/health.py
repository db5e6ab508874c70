"""Whether this process lives and can be sent requests; what it is."""

from fastapi import APIRouter

from leasehold import __version__
from leasehold.api.answers import Answer
from leasehold.api.door import Anybody, TheDoor

probes = APIRouter(tags=["health"])
router = APIRouter(tags=["health"])


@probes.get("/healthz")
def healthz() -> Answer:
    """Answer: this process lives, whatever the database does."""
    return Answer({"status": "ok"})


@probes.get("/readyz")
def readyz(door: TheDoor) -> Answer:
    """Answer 200 if the database answers and has our schema, else 503."""
    door.check_ready()
    return Answer({"status": "ready"})


@router.get("/version")
def version(_caller: Anybody) -> Answer:
    """Return the version of the program."""
    return Answer({"version": __version__})
