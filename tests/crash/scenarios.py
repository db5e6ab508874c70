"""
What is killed: short stories of one or two runs, each told so that any worker can go on.

`act` is called again and again, by whichever worker lives, until it says that the story is
over. It asks the rows where it stands. `expect` is how the story must end, killed or not.
"""

from dataclasses import replace
from typing import Final

from crash.acts import (
    FOREVER,
    SECRET,
    cancelled_while_running,
    cancels_in_acquire,
    faults,
    held,
    jumps,
    keeps_secret,
    kills_supervisor,
    loses_sandbox,
    one_run,
    parked,
    retained,
    reused,
    visited,
    visited_idle,
)
from crash.copies import carries, copied
from crash.expected import BIG, NOTHING, OFTEN, ONE, THRICE, TWICE, Expected, Scenario
from crash.hooked import hooked
from crash.preceded import preceded
from crash.pruned import pruned
from crash.scheduled import scheduled
from crash.workspace import with_workspace


def _family(provider: str) -> list[Scenario]:
    """Return the stories that every provider is told."""
    failed = Expected(
        status="failed",
        code="command_failed",
        starts=(2, 2),
        stdout=(b"one two\n",) * 2,
        stderr=(b"three\n",) * 2,
    )
    return [
        Scenario(name="success", provider=provider, act=one_run(provider), expect=ONE),
        Scenario(
            name="retry",
            provider=provider,
            since="provider.poll:before",
            act=one_run(provider, command={"code": 3}, retries=1),
            expect={"run": failed},
        ),
        Scenario(
            name="two-commands",
            provider=provider,
            since="provider.poll:before",
            act=one_run(provider, count=2),
            expect={"run": TWICE},
        ),
        Scenario(
            name="timeout",
            provider=provider,
            since="commit.clock.timer:before",
            act=one_run(provider, command={"seconds": FOREVER}, timeout_s=300, grace_s=0.1),
            watch=jumps,
            expect={"run": Expected(status="timed_out", code="timeout")},
        ),
        Scenario(
            name="cancel",
            provider=provider,
            since="commit.door.cancel:before",
            act=cancelled_while_running(provider),
            expect={"run": Expected(status="cancelled", code="cancelled")},
        ),
        Scenario(
            name="cancel-in-acquire",
            provider=provider,
            since="commit.door.cancel:before",
            act=one_run(provider),
            watch=cancels_in_acquire,
            expect={"run": NOTHING},
        ),
        Scenario(
            name="reuse",
            provider=provider,
            since="provider.release:before",
            act=reused(provider),
            expect={"first": Expected(), "second": Expected()},
            leases=frozenset({"expired"}),
        ),
        Scenario(
            name="retain",
            provider=provider,
            since="provider.poll:before",
            act=retained(provider),
            expect={"run": Expected(status="failed", code="command_failed")},
        ),
        Scenario(
            name="visit",
            provider=provider,
            since="provider.release:after",
            act=visited(provider),
            expect={
                "run": Expected(status="failed", code="command_failed"),
                "visit": Expected(),
            },
        ),
        Scenario(
            name="held",
            provider=provider,
            act=held(provider),
            expect={"first": Expected(), "second": Expected()},
        ),
        Scenario(
            name="output",
            provider=provider,
            since="provider.poll:before",
            act=one_run(provider, command={"fill": BIG}),
            expect={"run": Expected(stdout=(b"x" * BIG + b"one two\n",))},
        ),
        Scenario(
            name="workspace",
            provider=provider,
            since="provider.acquire:after",
            act=with_workspace(provider),
            expect={"run": THRICE if provider == "fake" else OFTEN},
        ),
    ]


_COPIED: Final = {
    "run": Expected(status="failed", code="command_failed"),
    "copy": Expected(),
}

_FAKE: Final = [
    Scenario(
        name="copy",
        provider="fake",
        since="provider.get:before",
        act=copied("fake"),
        only=carries,
        expect=_COPIED,
    ),
    Scenario(
        name="scheduled",
        provider="fake",
        act=scheduled("fake"),
        only=lambda point: "schedule" in point or "publish" in point,
        expect={},
    ),
    Scenario(
        name="preceded",
        provider="fake",
        act=preceded("fake"),
        only=lambda point: "preceding" in point or "record.heartbeat" in point,
        expect={
            "run": Expected(),
            "next": Expected(),
            "never": replace(NOTHING, code="predecessor_outcome"),
            "last": Expected(),
        },
    ),
    Scenario(
        name="hooked",
        provider="fake",
        act=hooked("fake"),
        only=lambda point: "webhook" in point or "record" in point,
        expect={},
    ),
    Scenario(
        name="pruned",
        provider="fake",
        since="commit.prune:before",
        act=pruned("fake"),
        only=lambda point: "prune" in point or "blob" in point,
        expect={},
    ),
    Scenario(
        name="lost",
        provider="fake",
        since="commit.record.execute:after",
        act=one_run("fake", command={"seconds": 0.05}),
        watch=loses_sandbox,
        expect={
            "run": Expected(status="failed", code="execution_lost", stdout=None, stderr=None)
        },
        leases=frozenset({"failed"}),
    ),
    Scenario(
        name="lost-idempotent",
        provider="fake",
        since="commit.record.execute:after",
        act=one_run("fake", command={"seconds": 0.05}, idempotent=True),
        watch=loses_sandbox,
        expect={"run": Expected(starts=(2, 2), stdout=None, stderr=None)},
        leases=frozenset({"failed", "released"}),
    ),
    Scenario(
        name="infra",
        provider="fake",
        act=one_run("fake", policy="reuse_by_environment"),
        prepare=faults(
            {"method": "validate", "fail": "provider_unavailable"},
            {"method": "acquire", "fail": "provider_unavailable", "after_effect": True},
            {"method": "start", "fail": "provider_unavailable", "after_effect": True},
            {"method": "poll", "fail": "provider_unavailable"},
            {"method": "release", "fail": "provider_unavailable", "after_effect": True},
        ),
        expect=ONE,
        leases=frozenset({"idle"}),
    ),
    Scenario(
        name="visit-idle",
        provider="fake",
        since="provider.release:after",
        act=visited_idle("fake"),
        expect={"run": Expected(), "visit": Expected()},
        leases=frozenset({"expired"}),
    ),
    Scenario(
        name="visit-cancelled",
        provider="fake",
        since="commit.door.cancel:before",
        act=visited("fake", cancelled=True),
        expect={
            "run": Expected(status="failed", code="command_failed"),
            "visit": Expected(status="cancelled", code="cancelled"),
        },
    ),
    Scenario(
        name="refused",
        provider="fake",
        since="provider.start:before",
        act=one_run("fake", cwd="../../etc"),
        expect={
            "run": Expected(
                status="failed", code="cwd_rejected", starts=(0, 0), stdout=(), stderr=()
            )
        },
    ),
    Scenario(
        name="parked",
        provider="fake",
        since="provider.acquire:before",
        act=parked,
        prepare=faults({"method": "acquire", "fail": "provider_unavailable", "times": 40}),
        expect={"run": NOTHING},
        leases=frozenset({"failed"}),
    ),
    Scenario(
        name="renew",
        provider="fake",
        act=one_run("fake", command={"seconds": 0.3}),
        watch=jumps,
        only=lambda point: "renew" in point or "fake:" in point,
        expect=ONE,
    ),
    Scenario(
        name="boot",
        provider="fake",
        act=one_run("fake"),
        only=lambda point: "worker" in point,
        boots=True,
        expect=ONE,
    ),
]

_LOCAL: Final = [
    Scenario(
        name="copy",
        provider="local",
        since="provider.get:before",
        act=copied("local", is_file=True),
        only=carries,
        expect=_COPIED,
    ),
    Scenario(
        name="secret",
        provider="local",
        since="commit.record.acquire:before",
        act=one_run(
            "local",
            command={"out": "one $TOKEN"},
            env={"TOKEN": {"secret": "token"}},
        ),
        prepare=keeps_secret("token"),
        # Whoever looks, and from wherever on: each byte of the value is covered.
        expect={"run": Expected(stdout=(b"one " + b"*" * len(SECRET) + b"\n",))},
    ),
    Scenario(
        name="supervisor-killed",
        provider="local",
        since="provider.poll:before",
        act=one_run("local", command={"seconds": FOREVER}),
        watch=kills_supervisor,
        expect={
            "run": Expected(status="failed", code="execution_lost", stdout=None, stderr=None)
        },
        leases=frozenset({"released", "failed"}),
    ),
]

_LEFT_OUT: Final = {
    "local": {"retain", "two-commands", "cancel-in-acquire"},
    "fake_plugin": {"retain", "two-commands", "cancel-in-acquire", "retry", "timeout", "cancel"}
    | {"held", "output", "workspace"},
}
"""Only what differs from `fake` is told again: the engine below is the same one."""

_IN_PROOF: Final = {
    *("local-workspace", "local-visit", "local-secret", "local-held", "local-copy"),
    *("local-reuse", "local-retry", "local-cancel", "local-timeout", "local-output"),
    *("fake_plugin-visit", "fake_plugin-reuse", "fake-visit-cancelled", "fake-visit-idle"),
    *("fake-visit", "fake-workspace", "fake-lost-idempotent"),
}
"""Long ones: their like is told of another provider, or they rest on what others pass."""

SCENARIOS: Final = [
    replace(story, proof=story.id in _IN_PROOF)
    for story in (
        *_family("fake"),
        *_FAKE,
        *(
            story
            for provider in ("local", "fake_plugin")
            for story in _family(provider)
            if story.name not in _LEFT_OUT[provider]
        ),
        *_LOCAL,
    )
]
