"""A latch that a signal handler may set, whatever its thread was doing at that moment."""

from queue import Empty, SimpleQueue


class Latch:
    """
    Set once, for ever.

    `threading.Event` has a lock that is not reentrant: a handler that sets one waits for ever
    for its own thread, if that was about to wait for it, or about to set it in the handler of
    a signal before. Nothing here holds a lock while Python code of ours runs.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._words: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._words.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is set, at most so long; return whether it is."""
        if not self._is_set:
            try:
                self._words.get(timeout=timeout_s)
            except Empty:
                return self._is_set
            self._words.put(None)  # for the next who waits
        return True
