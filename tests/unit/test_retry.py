"""Backoff doubles up to its limit and never lets those that failed together come together."""

import random
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.retry import backoff

BASE, LIMIT = timedelta(seconds=1), timedelta(minutes=5)


class Fixed(random.Random):
    """A source that always gives the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


def source(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - nothing here is a secret


@pytest.mark.parametrize(
    ("tries", "seconds"),
    [(-1, 1), (0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (31, 300), (100_000, 300)],
)
def test_it_doubles_up_to_its_limit(tries: int, seconds: float) -> None:
    least = backoff(tries, base=BASE, limit=LIMIT, rng=Fixed(0.0))
    most = backoff(tries, base=BASE, limit=LIMIT, rng=Fixed(1.0))
    assert least == timedelta(seconds=seconds / 2)
    assert most == timedelta(seconds=seconds)


@given(tries=st.integers(1, 10_000), seed=st.integers())
def test_it_is_above_zero_and_never_above_its_limit(tries: int, seed: int) -> None:
    wait = backoff(tries, base=BASE, limit=LIMIT, rng=source(seed))
    assert BASE / 2 <= wait <= LIMIT


def test_a_limit_below_the_base_stands() -> None:
    wait = backoff(1, base=LIMIT, limit=BASE, rng=Fixed(1.0))
    assert wait == BASE


def test_the_same_source_gives_the_same_waits() -> None:
    first, second = source(7), source(7)
    for tries in range(1, 20):
        one = backoff(tries, base=BASE, limit=LIMIT, rng=first)
        assert one == backoff(tries, base=BASE, limit=LIMIT, rng=second)


def test_many_that_failed_together_come_back_spread_out() -> None:
    rng = source(7)
    waits = sorted(backoff(5, base=BASE, limit=LIMIT, rng=rng) for _ in range(1_000))
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    assert waits[0] < timedelta(seconds=8.5)
    assert waits[-1] > timedelta(seconds=15.5)
    assert max(gaps) < timedelta(seconds=0.5)
