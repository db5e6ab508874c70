"""
The worker's side of the zygote: start supervisors, one at a time, from any thread.

A process that was forked from ours has a copy of the socket; it must not use it, since answers
would cross. So a fork drops its copy at once and begins with a zygote of its own.
"""

import contextlib
import marshal
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leasehold.provider import UnavailableError, effect

_BOOT = (
    "import sys; sys.path[:0] = sys.argv[2:];"
    " from leasehold_local.zygote import main; main(sys.argv[1])"
)
_PATIENCE_S = 20.0


class Spawned(NamedTuple):
    pid: int
    pidfd: int | None


class Spawner:
    def __init__(
        self, source: Path | None = None, *, module: str = "leasehold_local.supervisor"
    ) -> None:
        """
        `module` has the `Supervisor`; `source` is the directory that holds its package.

        A crash harness gives a copy.
        """
        self._module = module
        own = str(Path(__file__).parent.parent)
        self._path = list(dict.fromkeys([str(source or own), own]))
        self._lock = threading.Lock()
        self._door: socket.socket | None = None
        self._zygote = 0
        _spawners.add(self)

    def spawn(self, spec: Mapping[str, Any], stdin: bytes) -> Spawned:
        """
        Start a supervisor; it may still lose `go` and leave.

        Raises:
            UnavailableError: No process could be made, or no answer came.
        """
        handles = [_memory_file("leasehold-spec", marshal.dumps(dict(spec)))]
        try:
            if stdin:
                handles.append(_memory_file("leasehold-stdin", stdin))
            with self._lock:
                return self._ask(handles)
        finally:
            for handle in handles:
                os.close(handle)

    def _ask(self, handles: list[int]) -> Spawned:
        for last in (False, True):
            door = self._door or self._open()
            try:
                with effect("local:spawn"):
                    socket.send_fds(door, [b"S"], handles)
                    answer, received, _, _ = socket.recv_fds(door, 256, 1)
            except OSError as error:
                self._hang_up()
                if last:
                    raise UnavailableError(f"cannot start a supervisor: {error}") from error
                continue
            if answer[:1] == b"P":
                pidfd = received[0] if received else None
                return Spawned(int(answer[1:]), pidfd)
            self._hang_up()
            if last:
                text = answer[1:].decode(errors="replace") or "its process died"
                raise UnavailableError(f"cannot start a supervisor: {text}")
        raise AssertionError("unreachable")

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_PATIENCE_S)
        options = ("-I", "-S", "-X", "utf8", "-c", _BOOT)
        argv = [sys.executable, *options, self._module, *self._path]
        with theirs:
            try:
                with effect("local:zygote"):
                    self._zygote = os.posix_spawn(
                        sys.executable,
                        argv,
                        {},
                        file_actions=[
                            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                        ],
                        setsid=True,
                        setsigmask=[],
                    )
            except OSError as error:
                ours.close()
                raise UnavailableError(f"cannot start a process: {error}") from error
        self._door = ours
        return ours

    def _hang_up(self) -> None:
        """End our zygote; the supervisors that it forked go on."""
        if self._door is not None:
            self._door.close()
        self._door = None
        if self._zygote:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._zygote, signal.SIGKILL)
                os.waitpid(self._zygote, 0)
        self._zygote = 0

    def disown(self) -> None:
        """Forget a zygote that belongs to the process we were forked from."""
        self._lock = threading.Lock()
        if self._door is not None:
            self._door.close()
        self._door, self._zygote = None, 0

    def close(self) -> None:
        with self._lock:
            self._hang_up()


_spawners: "weakref.WeakSet[Spawner]" = weakref.WeakSet()


def _after_fork() -> None:
    for spawner in list(_spawners):
        spawner.disown()


os.register_at_fork(after_in_child=_after_fork)


def _memory_file(name: str, data: bytes) -> int:
    handle = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.lseek(handle, 0, os.SEEK_SET)
    except OSError as error:
        os.close(handle)
        raise UnavailableError(f"no memory for a command's input: {error}") from error
    return handle
