"""
The zygote: a small, clean interpreter that forks a supervisor per execution.

A worker holds hundreds of megabytes and many threads; forking it per command would be slow,
and starting an interpreter per command costs 20 ms and 8 MB. So each worker process that starts
commands keeps one of these, made by `posix_spawn` with an empty environment, and talks to it
over a socket pair. Nobody else can reach that socket.

What happens if it dies? Supervisors are processes of their own and go on; the worker starts
another zygote. If the worker dies, the socket closes and the zygote leaves.

Messages, one datagram each: ``S`` with the spec (a memory file; no secret touches the disk)
and perhaps the command's stdin as descriptors. Answer: the supervisor's pid, with a pidfd.
"""

import _socket
import gc
import importlib
import marshal
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_CLOEXEC_MESSAGE = 0x40000000
_DESCRIPTORS = 8
_WORD = 4


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        int.from_bytes(data[at : at + _WORD], sys.byteorder)
        for _, _, data in ancillary
        for at in range(0, len(data) - len(data) % _WORD, _WORD)
    ]


def _supervise(kind: Callable[..., Any], descriptors: list[int]) -> None:
    """Be a supervisor; never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        spec = marshal.loads(_content(descriptors[0]))  # noqa: S302 - written by our own worker
        stdin = descriptors[1] if len(descriptors) > 1 else None
        kind(spec, stdin).run()
    finally:
        os._exit(0)


def _content(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    data = b""
    while len(data) < size:
        data += os.pread(handle, size - len(data), len(data))
    os.close(handle)
    return data


def main(module: str) -> None:
    """Serve the socket at descriptor 0 until its other end is gone."""
    # Loaded once, shared by all forks.
    kind = importlib.import_module(module).Supervisor
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    door = _socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    gc.collect()
    gc.freeze()
    gc.disable()
    while True:
        message, ancillary, _, _ = door.recvmsg(
            16, _socket.CMSG_SPACE(_DESCRIPTORS * _WORD), _CLOEXEC_MESSAGE
        )
        if not message:
            os._exit(0)
        descriptors = _descriptors(ancillary)
        try:
            pid = os.fork()
        except OSError as error:
            door.send(b"E" + str(error).encode()[:200])
            pid = -1
        if pid == 0:
            door.close()
            _supervise(kind, descriptors)
        for handle in descriptors:
            os.close(handle)
        if pid > 0:
            _answer(door, pid)


def _answer(door: _socket.socket, pid: int) -> None:
    try:
        watch = os.pidfd_open(pid)
    except OSError:
        door.send(b"P" + str(pid).encode())
        return
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, watch.to_bytes(_WORD, sys.byteorder))
    door.sendmsg([b"P" + str(pid).encode()], [rights])
    os.close(watch)
