"""
A gatekeeper that goes to a sandbox's network: a process on the host, for engines' containers.

The container has no network but its loopback, which the kernel keeps: no route, no resolver,
no other interface. This process enters the container's network namespace for one moment and
listens there; everything else it does in the host's.

One per container, and no more: it holds a lock on its record in the control directory for as
long as it lives. It lives until the container's process 1 ends, whoever started it; nobody has
to end it. If it is killed, the sandbox has no way out until `acquire` or a beat starts another
one: failing, it is closed.

Usage (by `program`): RECORD NAME PID TREE, the entries on stdin, one a line. It comes back once
somebody listens. Exit code 3: another one holds the lock; 4: it cannot be, the reason is on
stderr.
"""

import ctypes
import fcntl
import os
import select
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from . import door

OTHER = 3
_CLONE_NEWNET = 0x40000000


def _locked(record: str) -> int:
    try:
        handle = os.open(record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(OTHER)
    return handle


def _watch(pid: int, tree: str) -> int:
    pidfd = os.pidfd_open(pid)
    # After the descriptor: the number may have been given away before.
    with Path(tree, "cgroup.procs").open(encoding="ascii") as lines:
        if pid not in map(int, lines):
            raise OSError("the container has ended")
    return pidfd


def _listen(pid: int, pidfd: int) -> socket.socket:
    """Listen in the network namespace of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        home = stack.enter_context(Path("/proc/self/ns/net").open("rb")).fileno()
        there = stack.enter_context(Path(f"/proc/{pid}/ns/net").open("rb")).fileno()
        if os.fstat(home).st_ino == os.fstat(there).st_ino:
            raise OSError("the container has no network namespace of its own")
        if select.select([pidfd], [], [], 0)[0]:
            # Then the number may already be another's.
            raise OSError("the container has ended")
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "its network namespace cannot be entered")
        try:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", door.PORT))
            listener.listen(door.MOST)
        finally:
            if libc.setns(home, _CLONE_NEWNET):
                os._exit(door.CANNOT)
    return listener


def main(arguments: list[str]) -> None:
    record, name, number, tree = arguments
    pid = int(number)
    try:
        own = door.ready(sys.stdin.read())
        handle = _locked(record)
        pidfd = _watch(pid, tree)
        listener = _listen(pid, pidfd)
        heard, told = os.pipe()
        if os.fork():
            os.close(told)
            sys.exit(0 if os.read(heard, 1) else door.CANNOT)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{name}\n{os.getpid()}\n".encode(), 0)
        os.close(heard)
        quiet = os.open(os.devnull, os.O_RDWR)
        for one in (0, 1, 2):
            os.dup2(quiet, one)
        os.setsid()
        door.drop()
        os.write(told, b"!")
        os.close(told)
    except (OSError, ValueError) as error:
        os.write(2, str(error).encode(errors="replace"))
        os._exit(door.CANNOT)
    door.keep(listener, pidfd, own)
