"""
The exit watch: one thread that learns from pidfds which supervisors have ended.

An entry is a supervisor's pidfd, one descriptor per execution. When it becomes readable the
supervisor is dead (also as a zombie), and its last act was the exit record. The entry goes
first, then the callbacks are called, so a poll that they cause looks at the disk.

Nothing depends on it: without a descriptor to spare an execution is not watched, and the next
beat sees its end. A forked process has no such thread; it starts with an empty watch.
"""

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from leasehold_local.processes import Identity, lives

_log = logging.getLogger(__name__)
_WAKE: Final = "wake"


class ExitWatch:
    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._callbacks: list[Callable[[str], None]] = []
        self._by_id: dict[str, int] = {}
        self._by_handle: dict[int, str] = {}
        self._confirmed: set[str] = set()
        self._epoll: select.epoll | None = None
        self._stop = -1
        self._thread: threading.Thread | None = None

    def listen(self, callback: Callable[[str], None]) -> None:
        """Call back with the id of each execution that ends from now on."""
        if self._owner != os.getpid():
            self._begin()
        with self._lock:
            self._callbacks.append(callback)
            if self._thread is None:
                self._epoll = select.epoll()
                read_end, self._stop = os.pipe()
                self._epoll.register(read_end, select.EPOLLIN)
                self._by_handle[read_end] = _WAKE
                self._thread = threading.Thread(
                    target=self._serve, args=(self._epoll,), name="local-exits", daemon=True
                )
                self._thread.start()

    @property
    def active(self) -> bool:
        return self._thread is not None and self._owner == os.getpid()

    def add(self, execution_id: str, pidfd: int) -> None:
        """Take over a pidfd; close it if nobody listens."""
        with self._lock:
            if not self.active or self._epoll is None or execution_id in self._by_id:
                os.close(pidfd)
                return
            self._by_id[execution_id] = pidfd
            self._by_handle[pidfd] = execution_id
            self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def confirm(self, execution_id: str, identity: Identity) -> bool:
        """
        Watch the supervisor that `go` names; false if it does not live.

        From here on `running` answers for it without a system call.
        """
        if not lives(identity.supervisor, identity.supervisor_began):
            return False
        if not self.active:
            return True
        with self._lock:
            known = self._by_id.get(execution_id)
        if known is None:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(identity.supervisor)
                # Looked at again: the number may have been given away in between.
                if not lives(identity.supervisor, identity.supervisor_began):
                    os.close(pidfd)
                    return False
                self.add(execution_id, pidfd)
        elif _pid_of(known) != identity.supervisor:
            return True
        with self._lock:
            if execution_id in self._by_id:
                self._confirmed.add(execution_id)
        return True

    def running(self, execution_id: str) -> bool:
        """Tell whether the supervisor that won `go` is known to live."""
        return execution_id in self._confirmed and self._owner == os.getpid()

    def _serve(self, epoll: select.epoll) -> None:
        while True:
            for handle, _ in epoll.poll():
                with self._lock:
                    name = self._by_handle.pop(handle)
                    if name is _WAKE:
                        os.close(handle)
                        return
                    self._confirmed.discard(name)
                    del self._by_id[name]
                    epoll.unregister(handle)
                    os.close(handle)
                self._tell(name)

    def _tell(self, name: str) -> None:
        for callback in list(self._callbacks):
            try:
                callback(name)
            except Exception:  # noqa: BLE001 - a listener's fault must not end the watch
                _log.exception("the exit of %s could not be told", name)

    def close(self) -> None:
        """End the thread and give the descriptors back."""
        if not self.active or self._thread is None:
            return
        os.close(self._stop)
        self._thread.join()
        with self._lock:
            for handle in self._by_id.values():
                os.close(handle)
            self._by_id.clear()
            self._by_handle.clear()
            self._confirmed.clear()
            self._callbacks.clear()
            if self._epoll is not None:
                self._epoll.close()
            self._thread = self._epoll = None


def _pid_of(pidfd: int) -> int:
    """Return the pid behind a pidfd, -1 once it is dead."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("Pid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return -1
