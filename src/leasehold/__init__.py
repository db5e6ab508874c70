"""
Durable runs in leased sandboxes, on Celery.

Two ways in for programs: `Client` speaks HTTP with `leasehold api`, and `enqueue` makes a run
in a transaction of your own. Both are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from leasehold.client import Client
    from leasehold.enqueuing import Enqueued, enqueue

__version__ = "0.1.0"
__all__ = ["Client", "Enqueued", "__version__", "enqueue"]
_HOMES: Final = {
    "Client": "leasehold.client",
    "Enqueued": "leasehold.enqueuing",
    "enqueue": "leasehold.enqueuing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
