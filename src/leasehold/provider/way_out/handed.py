"""
A gatekeeper that is given its listener, for plugins with a process that lives with the sandbox.

That process (the *parent*) starts it with the entries on descriptor 0 and a socket on
descriptor 1, over which it gets a listener that was made in the sandbox's network. That it
serves, or why it cannot, it says on descriptor 2. It never enters the sandbox itself.

It dies with its parent: the kernel kills it then, and the socket's end tells it too. So it
needs no lock and no record, and nobody has to look for it.

Usage (by `program`): PARENT, its pid.
"""

import ctypes
import os
import signal
import socket
from typing import NoReturn

from . import door

READY = b"!"
"""What it says when it serves."""

_PARENT_DEATH = 1
_ENOUGH = 1024 * 1024


def main(arguments: list[str]) -> NoReturn:
    (parent,) = arguments
    try:
        own = door.ready(os.pread(0, _ENOUGH, 0).decode())
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 0)
        door.drop()
        # A change of user takes it away, so not before.
        ctypes.CDLL(None).prctl(_PARENT_DEATH, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != int(parent):
            os._exit(0)
        parents = socket.socket(fileno=1)
        _, handles, _, _ = socket.recv_fds(parents, 1, 1)
        if not handles:
            os._exit(0)
        listener = socket.socket(fileno=handles[0])
        os.write(2, READY)
        os.dup2(0, 2)
    except (OSError, ValueError) as error:
        os.write(2, str(error).encode(errors="replace"))
        os._exit(door.CANNOT)
    door.keep(listener, parents.fileno(), own)
