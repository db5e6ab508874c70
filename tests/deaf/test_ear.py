"""The judgement of the canary, without a broker."""

from dataclasses import replace
from datetime import timedelta

import pytest

from leasehold import seams
from leasehold.runtime.canary import Ear


class Now:
    """A boot time that a test moves on."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Scene:
    """An ear whose broker takes canaries or not, and its turns ten seconds apart."""

    def __init__(self, now: Now) -> None:
        self.now, self.takes, self.full, self.sent = now, True, False, 0
        self.ear = Ear(
            send=self._send,
            busy=lambda: self.full,
            every=timedelta(seconds=10),
            deaf_after=timedelta(seconds=30),
        )
        self.turn()

    def _send(self) -> bool:
        self.sent += 1
        return self.takes

    def turn(self, after_s: float = 10.0) -> bool:
        self.now.at += after_s
        return self.ear.turn()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    now = Now()
    machine = replace(seams._machine[-1], boot_time=now)
    monkeypatch.setattr(seams, "_machine", [machine])
    return Scene(now)


def test_who_hears_no_canary_for_long_enough_is_deaf(scene: Scene) -> None:
    assert [scene.turn() for _ in range(4)] == [False, False, False, True]


def test_who_hears_is_never_deaf_and_sends_none_while_there_is_work(scene: Scene) -> None:
    for _ in range(20):
        scene.ear.hear()
        assert not scene.turn()
    assert scene.sent == 0


def test_one_canary_that_comes_back_ends_the_count(scene: Scene) -> None:
    scene.turn()
    scene.turn()
    scene.ear.hear()
    assert [scene.turn() for _ in range(4)] == [False] * 4


def test_a_broker_that_is_away_proves_nothing(scene: Scene) -> None:
    scene.takes = False
    assert not any(scene.turn() for _ in range(50))
    scene.takes = True
    assert [scene.turn() for _ in range(4)] == [False, False, False, True]


def test_who_may_not_take_more_is_not_deaf(scene: Scene) -> None:
    scene.full = True
    assert not any(scene.turn() for _ in range(50))
    assert scene.sent == 0


def test_who_was_stopped_itself_counts_anew(scene: Scene) -> None:
    scene.turn()
    scene.turn()
    scene.turn()
    assert not scene.turn(after_s=3600)
    assert [scene.turn() for _ in range(4)] == [False, False, False, True]
