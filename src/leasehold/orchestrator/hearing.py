"""
What this process has heard, a moment ago, of where sandboxes reach the API.

A sandbox that is made from the same things on the same host, with the same plain variables,
is in the same network: for a short time the answer of one is good for its like. Nothing is
lost with the process; the next one asks again.
"""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.store.database import Row
from leasehold.store.sql import load

FOR_US: Final = 60_000_000
"""How long an answer is good for the sandbox's like."""

_MOST: Final = 1000


def like(lease: Row, of: str) -> str:
    """
    Return what sandboxes have in common that reach the same.

    Args:
        of: The candidates' digest.
    """
    facts = load(lease["facts"])
    made = [lease["host_id"], lease["provider"], facts["config"], facts.get("environment_env")]
    text = json.dumps([of, lease["tenant_id"], *made], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Heard:
    """The answers of the last sandbox of each like, the newest last; bounded."""

    _told: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)

    def keep(self, one: str, runtime: dict[str, Any]) -> None:
        """Remember what a sandbox has answered, as its lease has it."""
        self._told.pop(one, None)
        self._told[one] = runtime
        while len(self._told) > _MOST:
            self._told.popitem(last=False)

    def of(self, one: str, *, now_us: int) -> dict[str, Any] | None:
        """Return what a sandbox of this like has answered a moment ago."""
        told = self._told.get(one)
        if told is None or not 0 <= now_us - told["asked_at"] < FOR_US:
            return None
        return told
