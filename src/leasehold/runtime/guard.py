"""
Whether this process may still start an effect: the holder's side of a session.

The agent writes the boot time at which its last *confirmed* beat was **sent** into a small
file that its children map; a child reads eight bytes before each effect. Counted from before
the sending, so a slow answer makes us careful, never bold. Observers wait for a whole session
time to live, a holder trusts itself for less (`domain.timers`), so a holder stops first.

Beside it stands the number of the newest request for a sweep, which came with that beat.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

from leasehold.provider.budget import boot_time

_BEACON: Final = struct.Struct("<dQ")


class Beacon:
    """The agent's side: says when the last confirmed beat was sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_BEACON.pack(0.0, 0))
        self._map = _map(path, write=True)
        self._wanted = 0

    def confirm(self, sent_at: float) -> None:
        self._map[:] = _BEACON.pack(sent_at, self._wanted)

    def ask(self, sweep: int) -> None:
        """Hand the number of a request for a sweep to the children."""
        if sweep != self._wanted:
            self._wanted = sweep
            sent_at, _ = _BEACON.unpack(self._map[:])
            self.confirm(sent_at)

    def lose(self) -> None:
        """The session is gone, or its database: nobody may trust it from now on."""
        self.confirm(0.0)

    def remove(self) -> None:
        self._map.close()
        self.path.unlink(missing_ok=True)


class BeaconGuard:
    """The holder's side; one in each worker process."""

    def __init__(self, path: Path, *, trust_s: float) -> None:
        self._map = _map(path, write=False)
        self._trust_s = trust_s

    def lost(self) -> str | None:
        """Return why no new effect may be started, or None."""
        sent_at, _ = _BEACON.unpack(self._map[:])
        return too_old(sent_at, trust_s=self._trust_s)

    def wanted(self) -> int:
        """Return the number of the newest request for a sweep; 0: there is none."""
        _, wanted = _BEACON.unpack(self._map[:])
        return int(wanted)


def too_old(sent_at: float, *, trust_s: float) -> str | None:
    """Say why a session whose last confirmed beat was sent then is not trusted, or None."""
    age = boot_time() - sent_at
    if age <= trust_s:
        return None
    return f"the session's last confirmed beat is {age:.1f} s old"


def _map(path: Path, *, write: bool) -> mmap.mmap:
    handle = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    try:
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        return mmap.mmap(handle, _BEACON.size, access=access)
    finally:
        os.close(handle)
