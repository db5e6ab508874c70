"""
Every duration that a promise rests on, in one table, with the inequalities between them.

`check` is called when a process starts, so that a setting which would break a promise is
refused there and not found out at night.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from leasehold.errors import BadInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """Each may be set in ``LEASEHOLD_TIMERS``, a JSON object of seconds or ISO 8601."""

    beat_every: timedelta = timedelta(seconds=2)
    """Between two beats of a session."""

    session_ttl: timedelta = timedelta(seconds=10)
    """An observer that sees no beat for so long calls the session dead."""

    holder_trust: timedelta = timedelta(seconds=6)
    """A holder starts no new effect so long after its last confirmed beat was sent."""

    observe_gap: timedelta = timedelta(seconds=3)
    """A longer pause between two reads of an observer starts its series anew."""

    sandbox_ttl: timedelta = timedelta(minutes=30)
    """The sandbox's own time to live; renewed at a third."""

    host_grace: timedelta = timedelta(seconds=60)
    """How long a host without a live session may come back and go on."""

    detached_ttl: timedelta = timedelta(hours=24)
    """What a drain renews sandboxes to, for commands that go on while nothing of ours runs."""

    idle_ttl: timedelta = timedelta(minutes=10)
    """How long a sandbox waits for reuse, unless its environment says otherwise."""

    retained_ttl: timedelta = timedelta(hours=24)
    """How long a retained sandbox is kept for a person."""

    start_timeout: timedelta = timedelta(minutes=10)
    """From admission until the command starts, unless the run says otherwise."""

    queue_timeout: timedelta = timedelta(hours=1)
    """From submit until admission, unless the run says otherwise."""

    deadline: timedelta = timedelta(days=7)
    """From submit until a run is over, whatever happens, unless the run says otherwise."""

    heartbeat_min: timedelta = timedelta(seconds=0.2)
    """The first look at a command that nothing watches; later ones come less often."""

    heartbeat_follow: timedelta = timedelta(seconds=1)
    """Between two looks while somebody follows the output."""

    heartbeat_max: timedelta = timedelta(seconds=15)
    """Between two looks otherwise, at most."""

    starting_max: timedelta = timedelta(seconds=10)
    """An execution that is `starting` for longer is settled by a claim."""

    provider_call: timedelta = timedelta(minutes=2)
    """Budget of one provider call that is not an acquire."""

    transfer: timedelta = timedelta(minutes=10)
    """Budget of bringing a workspace into a sandbox, or its artifacts out; at most a third of
    the sandbox's own time to live, which must not end in the middle of it."""

    retry_base: timedelta = timedelta(seconds=1)
    """The first wait after a step failed for its infrastructure, doubling with jitter."""

    retry_max: timedelta = timedelta(minutes=5)
    """The longest such wait."""

    cleanup_retry_base: timedelta = timedelta(seconds=2)
    """The first wait after a release failed, doubling with jitter, without an end."""

    cleanup_retry_max: timedelta = timedelta(minutes=10)
    """The longest such wait."""

    republish_base: timedelta = timedelta(seconds=5)
    """A due row whose message nobody claimed is sent again after this, doubling."""

    republish_max: timedelta = timedelta(minutes=2)
    """The longest wait until a due row is sent again."""

    clock_max_sleep: timedelta = timedelta(seconds=5)
    """A clock looks at least so often, nudged or not."""

    sweep_every: timedelta = timedelta(minutes=5)
    """Between two comparisons of what a provider has with SQL."""

    sweep_grace: timedelta = timedelta(minutes=5)
    """A sandbox younger than this is never called a stray."""

    child_silent: timedelta = timedelta(seconds=20)
    """A worker process that its agent does not hear for so long is stuck, and is killed."""

    canary_every: timedelta = timedelta(seconds=10)
    """A worker that has got no message for so long sends itself one."""

    deaf_after: timedelta = timedelta(seconds=30)
    """A worker that its own messages do not reach for so long does not consume, and ends."""

    @property
    def transfer_budget(self) -> timedelta:
        return min(self.transfer, self.sandbox_ttl / 3)

    def check(self) -> None:
        """
        Refuse a table that would break a promise.

        Raises:
            BadInputError: Names the timers and the inequality.
        """
        for field in fields(self):
            if getattr(self, field.name) <= timedelta(0):
                raise BadInputError(f"{field.name} must be above zero", field=field.name)
        for text, holds in RULES:
            if not holds(self):
                raise BadInputError(f"timers must keep {text}", field=text.split(" ", 1)[0])


RULES: Final[tuple[tuple[str, Callable[[Timers], bool]], ...]] = (
    ("beat_every * 2 <= holder_trust", lambda t: t.beat_every * 2 <= t.holder_trust),
    ("holder_trust < session_ttl", lambda t: t.holder_trust < t.session_ttl),
    ("observe_gap < session_ttl", lambda t: t.observe_gap < t.session_ttl),
    ("session_ttl <= host_grace", lambda t: t.session_ttl <= t.host_grace),
    ("session_ttl * 2 < sandbox_ttl", lambda t: t.session_ttl * 2 < t.sandbox_ttl),
    ("heartbeat_max * 2 < sandbox_ttl", lambda t: t.heartbeat_max * 2 < t.sandbox_ttl),
    ("sandbox_ttl <= detached_ttl", lambda t: t.sandbox_ttl <= t.detached_ttl),
    ("canary_every * 2 <= deaf_after", lambda t: t.canary_every * 2 <= t.deaf_after),
    ("heartbeat_min <= heartbeat_max", lambda t: t.heartbeat_min <= t.heartbeat_max),
)
"""What protects the promises: its words, and whether a table keeps it."""
