"""
Resolving secrets at the moment of use, and knowing what must be hidden.

The values live in this process's memory only, for a while after they were asked for. If the
process dies, nothing is left of them; the next one resolves the same pins anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from leasehold.domain.redaction import NOTHING, Redactor, needles_of
from leasehold.domain.secrets import Pins
from leasehold.errors import SecretUnavailableError
from leasehold.provider.budget import boot_time
from leasehold.vault.sources import Found, Source

KEEP_S: Final = 60.0
_MOST: Final = 1024


class _Kept(NamedTuple):
    found: Found
    since: float
    forms: frozenset[str]
    """Every form of the value that a log line must not show."""


class Vault:
    """What one process knows of secrets; thread-safe."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        told: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """`told` hears the values in memory now, in all their forms, so that logs hide them."""
        self._sources, self._told = dict(sources), told
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], _Kept] = OrderedDict()
        self._redactors: OrderedDict[frozenset[str], Redactor] = OrderedDict()

    @property
    def sources(self) -> list[str]:
        return list(self._sources)

    def look_up(self, tenant_id: str, name: str, version: int = 0) -> Found:
        """
        Return a secret's value and version; 0 means the current one.

        Raises:
            SecretUnavailableError: No source has it, or the one that has cannot give it.
            StoreUnavailableError: The database did not answer.
        """
        key = (tenant_id, name, version)
        now = boot_time()
        with self._lock:
            kept = self._kept.get(key)
            # What is current may change; what is pinned never does.
            if kept is not None and version and now - kept.since < KEEP_S:
                self._kept.move_to_end(key)
                return kept.found
        for source in self._sources.values():
            if (found := source.find(tenant_id, name, version)) is not None:
                self._keep(key, found, now)
                return found
        asked = ", ".join(self._sources) or "nowhere: no source is configured"
        which = f"version {version} of " if version else ""
        raise SecretUnavailableError(
            f"there is no {which}secret {name!r} (looked in: {asked})", retryable=False
        )

    def _keep(self, key: tuple[str, str, int], found: Found, now: float) -> None:
        needles = needles_of(found.value)
        forms = frozenset({found.value, *(one.decode(errors="replace") for one in needles)})
        with self._lock:
            self._kept[key] = _Kept(found, now, forms)
            self._kept.move_to_end(key)
            for old in [k for k, kept in self._kept.items() if now - kept.since > KEEP_S]:
                del self._kept[old]
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            forms = frozenset[str]().union(*(kept.forms for kept in self._kept.values()))
        self._told(sorted(forms))

    def resolve(self, tenant_id: str, pins: Pins) -> dict[str, str]:
        """
        Return the values of pinned names.

        Raises:
            SecretUnavailableError: One of them cannot be had.
            StoreUnavailableError: The database did not answer.
        """
        return {name: self.look_up(tenant_id, name, pins[name]).value for name in sorted(pins)}

    def redactor(self, tenant_id: str, pins: Pins) -> Redactor:
        """
        Return what hides the values of these names; the same pins cost once.

        Raises:
            SecretUnavailableError: One of them cannot be had: then nothing may be shown.
        """
        if not pins:
            return NOTHING
        values = frozenset(self.resolve(tenant_id, pins).values())
        with self._lock:
            made = self._redactors.get(values)
            if made is None:
                made = self._redactors[values] = Redactor.of(values)
                while len(self._redactors) > _MOST:
                    self._redactors.popitem(last=False)
            self._redactors.move_to_end(values)
        return made


__all__ = ["KEEP_S", "SecretUnavailableError", "Vault"]
