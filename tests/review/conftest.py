"""The house of the stories, on both databases, and a way to wait."""

import time
from collections.abc import Callable

import pytest

from story.conftest import house

__all__ = ["house", "wait_for"]


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], bool]:
    """Return a function that waits for a condition, and says whether it came true."""

    def wait(condition: Callable[[], bool], *, seconds: float = 10.0) -> bool:
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.005)
        return True

    return wait
