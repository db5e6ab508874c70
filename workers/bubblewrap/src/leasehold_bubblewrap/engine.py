"""
The program `bwrap` on this host: where it is, how old, and as whom it can make namespaces.

A worker that is root gives its commands a uid of their own (65534, in the sandbox 1000): the
kernel knows root by its uid in more places than a user namespace covers. `bwrap` itself is
started as that uid then. Where the host lets only root make user namespaces, commands keep the
worker's uid, without any capability; the probe and the lease's metadata say so.

Found out by trying, once per process; the probe tries anew.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from typing import Final, NamedTuple

from leasehold.provider import SAFE_PATH

OUTSIDE: Final = 65534
"""Whom a command is, on the host, if its worker is root."""

INSIDE: Final = 1000
"""Whom a command is, as it sees itself."""

OLDEST: Final = (0, 8)
"""The first version with `--size` and `--disable-userns`."""

NAMESPACES: Final = (
    *("--unshare-user", "--uid", str(INSIDE), "--gid", str(INSIDE), "--disable-userns"),
    *("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "sandbox", "--die-with-parent", "--new-session"),
)
"""All but the network's, which a config may share with the host."""

_ADMIN: Final = 1 << 21
_PATIENCE_S: Final = 20.0


class Engine(NamedTuple):
    """What was found; `trouble` is why nothing can be started, if so."""

    path: str | None
    version: str = ""
    owner: int | None = None
    """The uid for commands, if it is not the worker's."""

    trouble: str | None = None


def look(search: str | None = None) -> Engine:
    """Look for `bwrap`, along `search` or the usual path, and let it make an empty sandbox."""
    usual = f"{os.environ.get('PATH', '')}:{SAFE_PATH}"
    path = shutil.which("bwrap", path=usual if search is None else search)
    if path is None:
        return Engine(
            None, trouble="bwrap is not installed (Debian: apt-get install bubblewrap)"
        )
    version = _said([path, "--version"], None)[1].removeprefix("bubblewrap").strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        text = f"bubblewrap {version or 'of no known version'} is too old; 0.8 is needed"
        return Engine(path, version, trouble=text)
    why = ""
    for owner in (OUTSIDE, None) if _may_give_away() else (None,):
        code, why = _said([path, *trial(), "--", "cat", "/dev/null"], owner)
        if code == 0:
            return Engine(path, version, owner)
    return Engine(path, version, trouble=f"bwrap cannot make a sandbox here: {why}")


@cache
def known() -> Engine:
    """Return what this process found first."""
    return look()


def trial() -> list[str]:
    """Return the arguments of a sandbox with all namespaces and nothing of its own."""
    from leasehold_bubblewrap.mounts import system

    return [*NAMESPACES, "--unshare-net", *system(), "--proc", "/proc", "--dev", "/dev"]


def _may_give_away() -> bool:
    """Tell whether we may change our uid and make mounts for whom we become."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        found = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(found.split()[1], 16) & _ADMIN)


def _said(argv: list[str], user: int | None) -> tuple[int, str]:
    """Run a short program with a clean environment; return its code and what it said."""
    groups = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
    try:
        done = subprocess.run(  # type: ignore[call-overload]  # the three belong together
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={"PATH": SAFE_PATH, "LC_ALL": "C"},
            cwd="/",
            timeout=_PATIENCE_S,
            check=False,
            **groups,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return -1, str(error)
    return done.returncode, (done.stdout or done.stderr).strip()
