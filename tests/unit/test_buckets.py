"""Token buckets: a burst, then a rate; who waits is told how long."""

from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.buckets import Buckets


def test_a_burst_is_let_through_and_then_as_many_as_the_rate_says() -> None:
    buckets = Buckets(per_s=2, burst=3)
    assert [buckets.take("a", now=10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", now=10.25) == 0.25
    assert buckets.take("a", now=10.5) == 0
    assert buckets.take("a", now=10.5) == 0.5
    assert [buckets.take("a", now=99.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_each_name_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(per_s=1, burst=1)
    assert buckets.take("a", now=0.0) == 0
    assert buckets.take("b", now=0.0) == 0
    assert buckets.take("a", now=0.0) == 1


def test_what_is_given_back_was_never_taken() -> None:
    buckets = Buckets(per_s=1, burst=1)
    for _ in range(5):
        assert buckets.take("a", now=0.0) == 0
        buckets.give_back("a")
    buckets.give_back("a")
    buckets.give_back("nobody")
    assert [buckets.take("a", now=0.0) for _ in range(2)] == [0, 1]


def test_without_a_rate_there_is_no_limit() -> None:
    buckets = Buckets(per_s=0, burst=1)
    assert [buckets.take("a", now=0.0) for _ in range(5)] == [0] * 5


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    buckets = Buckets(per_s=1, burst=1, most=2)
    for name in ("a", "b", "a", "c"):
        buckets.take(name, now=0.0)
    assert buckets.take("a", now=0.0) == 1
    assert buckets.take("b", now=0.0) == 0


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 20), st.integers(1, 20))
def test_never_more_than_the_burst_and_the_rate(
    pauses: list[float], per_s: float, burst: int
) -> None:
    buckets, now, through = Buckets(per_s, burst), 0.0, 0
    for pause in pauses:
        now += pause
        through += buckets.take("a", now=now) == 0
    assert through <= burst + now * per_s + 1e-6
