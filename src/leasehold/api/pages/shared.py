"""
What many open pages look at, looked up once for all of them.

Pages ask again when they are told that something changed. Those of one tenant, role and address
would then ask the database the same thing at the same moment, so the first one asks and the
others get its answer. Only live updates share: whoever loads a page, or comes from a form,
sees what is true then.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from leasehold.provider.budget import boot_time

T = TypeVar("T")
WITHIN_S: Final = 1.0
MOST: Final = 256


class Shared:
    """Answers of the last second, by what was asked; used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, tuple[float, Future[Any]]] = OrderedDict()

    def get(self, key: Hashable, ask: Callable[[], T]) -> T:
        """Return what `ask` returns, or what it returned to another one just now."""
        now = boot_time()
        with self._lock:
            at, future = self._found.get(key, (0.0, None))
            mine = future is None or now - at > WITHIN_S
            if mine:
                future = Future()
                self._found[key] = (now, future)
                self._found.move_to_end(key)
                while len(self._found) > MOST:
                    self._found.popitem(last=False)
        assert future is not None
        if mine:
            try:
                future.set_result(ask())
            except BaseException as error:
                future.set_exception(error)
                raise
        found: T = future.result()
        return found
