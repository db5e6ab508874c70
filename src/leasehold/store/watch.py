"""
What may be believed of time that has passed: only what somebody watched.

A sandbox ends by itself when its own time to live is over, counted on its host's boot time.
To call a command surely over, SQL's time must have gone on for as long. While a clock of ours
runs, a wall clock that is set is taken out (`domain.pace`); while none runs, nobody can tell a
clock that was set from time that passed. A gap of up to half of `host_grace` passes for none:
everything waits for the whole grace longer. So two facts:

- ``clock_seen_us``: the time, as a clock of ours last vouched for it. Written by whoever finds
  it older than a quarter of `host_grace`.
- ``watched_from_us``: the time when watching last began after a gap. Time before it proves
  nothing of the kind: what lived then may have had its whole life still before it.

Both are written in one transaction, before that clock believes anything. Killed before it, the
next clock finds the same gap; after it, the gap is on record. A gap that is none (all agents
restarted within a minute, say) costs patience, never a command.
"""

from dataclasses import dataclass
from typing import Final

from leasehold.store import environments
from leasehold.store.database import Row, Tx

_SEEN: Final = "clock_seen_us"
_FROM: Final = "watched_from_us"


@dataclass(frozen=True, slots=True)
class Watch:
    """The time, and since when it was watched."""

    now_us: int
    from_us: int | None
    """None: nobody watches just now, or the time was set this very minute."""

    grace_us: int

    def surely_over(self, lease: Row) -> bool:
        """Return whether a sandbox's own time to live is over, whatever befell the clocks."""
        expires_at, renew_at = lease["sandbox_expires_at"], lease["renew_at"]
        if self.from_us is None or expires_at is None or renew_at is None:
            return False
        life_us = int(expires_at - renew_at) * 3 // 2  # a third of it is up at `renew_at`
        since: int = max(expires_at, self.from_us + life_us)
        return self.now_us > since + self.grace_us


def read(tx: Tx, *, grace_us: int) -> Watch:
    """Return what is known of the time now."""
    return _watch(tx, grace_us)[0]


def _watch(tx: Tx, grace_us: int) -> tuple[Watch, str | None]:
    rows = tx.all(
        "SELECT name, value FROM facts WHERE name IN (:seen, :began)", seen=_SEEN, began=_FROM
    )
    facts = {row["name"]: row["value"] for row in rows}
    now_us, seen = tx.now(), facts.get(_SEEN)
    watched = seen is not None and abs(now_us - int(seen)) <= grace_us // 2
    from_us = int(facts[_FROM]) if watched and _FROM in facts else None
    return Watch(now_us, from_us, grace_us), seen


def is_stale(now_us: int, seen_us: int | None, *, grace_us: int) -> bool:
    """Return whether somebody should vouch for the time again."""
    return seen_us is None or not 0 <= now_us - seen_us <= grace_us // 4


def vouch(tx: Tx, *, watched_us: int, grace_us: int) -> bool:
    """
    Vouch for the time; return whether a gap was found.

    Args:
        watched_us: For how long the caller itself has seen the clock go evenly.
    """
    watch, seen = _watch(tx, grace_us)
    now_us, limit_us = watch.now_us, grace_us // 2
    if seen is None:
        environments.set_fact(tx, _SEEN, str(now_us))
    elif not environments.change_fact(tx, _SEEN, str(now_us), held=seen):
        return False  # somebody was first
    if seen is not None and -limit_us <= now_us - int(seen) <= watched_us + limit_us:
        return False
    environments.set_fact(tx, _FROM, str(now_us))
    return True
