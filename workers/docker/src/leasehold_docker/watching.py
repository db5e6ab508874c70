"""
The exit watch: one thread that the kernel tells when an execution's record gets its name.

It watches the directory of each execution that this process started (inotify), for the rename
that is the supervisor's last word. Nothing depends on it: without a watch to spare an execution
is not watched, and the next beat sees its end. A forked process has no such thread and starts
anew.
"""

import ctypes
import logging
import os
import select
import struct
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)
_MOVED_TO: Final = 0x80
_ONLY_DIRECTORIES: Final = 0x01000000
_IGNORED: Final = 0x8000
_HEAD: Final = struct.Struct("iIII")
_BUFFER: Final = 65536


class ExitWatch:
    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[str], None]] = []
        self._ids: dict[int, str] = {}
        self._notify = self._stop = -1
        self._thread: threading.Thread | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)

    def listen(self, callback: Callable[[str], None]) -> None:
        """Call back with the id of each execution that ends from now on."""
        if self._owner != os.getpid():
            self._begin()
        with self._lock:
            self._callbacks.append(callback)
            if self._thread is None:
                self._notify = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
                wake, self._stop = os.pipe()
                self._thread = threading.Thread(
                    target=self._serve, args=(wake,), name="docker-exits", daemon=True
                )
                self._thread.start()

    def add(self, execution_id: str, place: str) -> None:
        """Watch an execution of ours, if anybody listens."""
        if self._thread is None or self._owner != os.getpid():
            return
        with self._lock:
            flags = _MOVED_TO | _ONLY_DIRECTORIES
            number = self._libc.inotify_add_watch(self._notify, os.fsencode(place), flags)
            if number < 0:
                return
            self._ids[number] = execution_id
        if os.path.exists(f"{place}/exit"):
            self._over(number)

    def _serve(self, wake: int) -> None:
        poll = select.poll()
        poll.register(self._notify, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while wake not in dict(poll.poll()):
            try:
                data = os.read(self._notify, _BUFFER)
            except BlockingIOError:
                continue
            self._hear(data)
        os.close(wake)

    def _hear(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            number, mask, _, size = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
            at += _HEAD.size + size
            if mask & _IGNORED:
                with self._lock:
                    self._ids.pop(number, None)
            elif name == b"exit":
                self._over(number)

    def _over(self, number: int) -> None:
        with self._lock:
            name = self._ids.pop(number, None)
            if name is not None:
                self._libc.inotify_rm_watch(self._notify, number)
        if name is None:
            return
        for callback in list(self._callbacks):
            try:
                callback(name)
            except Exception:  # noqa: BLE001  a listener's fault must not end the watch
                _log.exception("the exit of %s could not be told", name)

    def close(self) -> None:
        """End the thread and give the descriptors back."""
        if self._thread is None or self._owner != os.getpid():
            return
        os.close(self._stop)
        self._thread.join()
        os.close(self._notify)
        self._thread = None
        self._callbacks.clear()
        self._ids.clear()
