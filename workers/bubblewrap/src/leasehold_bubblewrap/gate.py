"""
The way out of a sandbox with an allow-list, as the supervisor of a command keeps it.

The sandbox has no network but its loopback. While the joiner is alone in its namespaces it
makes a listener there and hands it to us; a *gatekeeper*, our child on the host, accepts from
it and lets through what the list names (`leasehold.provider.way_out`). Nothing of ours is
inside while the command runs, and the command is born only when somebody serves.

    the joiner ──listener──▶ supervisor ──listener──▶ gatekeeper ──"!"──▶ supervisor ──▶ joiner

What happens if we die here? The gatekeeper dies with us, by the kernel's word, as the sandbox
does. If the gatekeeper dies, connections wait in the listener, which we still have, until the
next one serves; when too many have died the listener is closed: failing, it is shut.
"""

import _socket
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

from leasehold_local.command import die_with_parent

_TRIES: Final = 20
"""Gatekeepers that one command gets."""

_READY: Final = b"!"
_YES: Final = b"1"
_WORD: Final = 4
_MOST: Final = 300
_CLOEXEC_MESSAGE: Final = 0x40000000


class Gate:
    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self.outer, self.inner = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.heard, self._tell = os.pipe()
        """What gatekeepers say; all of them the same pipe, so that it is listened to once."""

        self._entries = os.memfd_create("leasehold-allow", os.MFD_CLOEXEC)
        os.write(self._entries, spec["entries"])
        self._listener = -1
        self._tries = 0
        self._over = False
        self._why = b"no gatekeeper starts"
        self._door: _socket.socket | None = None
        self.keeper = 0

    def begin(self) -> None:
        """Start a gatekeeper, while the sandbox is being made."""
        self.inner.close()
        self._start()

    def take_listener(self) -> bool:
        """Take what the joiner hands over; nothing if there will be no sandbox."""
        handles = _received(self.outer)
        if handles:
            self._listener = handles[0]
            self._hand_over()
        return False

    def hear(self) -> bool:
        """Hear that a gatekeeper serves, or why it cannot."""
        text = os.read(self.heard, _MOST)
        if not text.startswith(_READY):
            self._why = text.strip()
        else:
            self._answer(_YES)
        return True

    def ended(self, pid: int) -> None:
        """Follow a gatekeeper that died."""
        if pid != self.keeper or self._over:
            return
        self.keeper = 0
        if self._tries < _TRIES:
            self._start()
            self._hand_over()
        else:
            self._answer(self._why[:_MOST])
            self.end()

    def end(self) -> None:
        """Shut it, for good."""
        if self._over:
            return
        self._over = True
        if self.keeper:
            os.kill(self.keeper, signal.SIGKILL)  # @ shut
        self.outer.close()
        if self._listener >= 0:
            os.close(self._listener)
        if self._door is not None:
            self._door.close()

    def _start(self) -> None:
        self._tries += 1
        if self._door is not None:
            self._door.close()
        self._door, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        words = [*self._spec["argv"], b"%d" % os.getpid()]
        pid = os.fork()  # @ gatekeeper
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                os.setsid()
                # Root's takes another user later, and has to ask for it again.
                die_with_parent()
                for place, handle in enumerate((self._entries, theirs.fileno(), self._tell)):
                    os.dup2(handle, place)
                os.execve(words[0], words, self._spec["env"])  # noqa: S606 - no shell is the point
            finally:
                os._exit(127)
        theirs.close()
        self.keeper = pid

    def _hand_over(self) -> None:
        if self._listener >= 0 and self._door is not None:
            _send(self._door, self._listener)  # @ hand_over

    def _answer(self, word: bytes) -> None:
        """Tell the joiner; it is gone once the command is born."""
        try:
            self.outer.send(word)
        except OSError:
            return


def listen(gate: _socket.socket, port: int) -> None:
    """
    Be the joiner: listen on this network's loopback, hand it over, wait until somebody serves.

    Raises:
        OSError: Nobody does; says why.
    """
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    _send(gate, listener.fileno())
    listener.close()
    word = gate.recv(_MOST)
    if word != _YES:
        text = word.decode(errors="replace") or "its supervisor has shut it"
        raise OSError(f"the sandbox has no way out: {text}")


def _send(door: _socket.socket, handle: int) -> None:
    rights = handle.to_bytes(_WORD, sys.byteorder)
    try:
        door.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    except (BrokenPipeError, ConnectionResetError):
        # Whoever was to have it is dead, and its end is heard of otherwise.
        return


def _received(door: _socket.socket) -> list[int]:
    _, found, _, _ = door.recvmsg(1, _socket.CMSG_SPACE(_WORD), _CLOEXEC_MESSAGE)
    return [
        int.from_bytes(data[at : at + _WORD], sys.byteorder)
        for _, _, data in found
        for at in range(0, len(data) - len(data) % _WORD, _WORD)
    ]
