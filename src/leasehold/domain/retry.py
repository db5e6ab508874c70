"""Backoff: exponential, capped, with jitter from a given random source."""

import random
from datetime import timedelta


def backoff(tries: int, *, base: timedelta, limit: timedelta, rng: random.Random) -> timedelta:
    """
    Return the wait before try number `tries` + 1 (`tries` ≥ 1 have failed).

    Full doubling up to `limit`, then between a half and the whole of it, so that many
    that failed together do not come back together.
    """
    whole: timedelta = min(base * 2 ** min(max(tries, 1) - 1, 30), limit)
    spread = 0.5 + rng.random() / 2
    return timedelta(seconds=whole.total_seconds() * spread)
