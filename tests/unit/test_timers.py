"""Timers that would break a promise are refused when a process starts."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest

from leasehold.domain.timers import Timers
from leasehold.errors import BadInputError

NAMES = [field.name for field in fields(Timers)]


def refusal(timers: Timers) -> tuple[str | None, str]:
    with pytest.raises(BadInputError) as caught:
        timers.check()
    return caught.value.field, str(caught.value)


def test_the_defaults_keep_every_inequality() -> None:
    Timers().check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1)])
def test_every_timer_is_above_zero(name: str, value: timedelta) -> None:
    assert refusal(replace(Timers(), **{name: value})) == (name, f"{name} must be above zero")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"beat_every": 3.1}, "beat_every * 2 <= holder_trust"),
        ({"holder_trust": 10}, "holder_trust < session_ttl"),
        ({"observe_gap": 10}, "observe_gap < session_ttl"),
        ({"host_grace": 9}, "session_ttl <= host_grace"),
        ({"sandbox_ttl": 30, "session_ttl": 15, "heartbeat_max": 1}, "session_ttl * 2 <"),
        ({"heartbeat_max": 900}, "heartbeat_max * 2 < sandbox_ttl"),
        ({"detached_ttl": 1799}, "sandbox_ttl <= detached_ttl"),
        ({"heartbeat_min": 16}, "heartbeat_min <= heartbeat_max"),
    ],
)
def test_each_inequality_is_named_when_it_is_broken(
    changes: dict[str, float], rule: str
) -> None:
    values = {name: timedelta(seconds=value) for name, value in changes.items()}
    field, message = refusal(replace(Timers(), **values))
    assert message.startswith(f"timers must keep {rule}")
    assert field == rule.split(" ", 1)[0]


def test_short_timers_for_tests_are_possible() -> None:
    short = {name: getattr(Timers(), name) / 20 for name in NAMES}
    Timers(**short).check()
