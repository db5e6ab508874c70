"""
What a command sees of a file system: the arguments of `bwrap`, without any secret.

    /usr /bin /lib …        the host's programs, read-only
    /etc                    made up, with a few of the host's own names, read-only
    /proc /dev              of the sandbox's own namespaces
    /tmp /dev/shm           in memory, private to one command, of a limited size
    /work                   the lease's directory: where a command starts
    /home/sandbox           HOME, the lease's too
    whatever `ro_binds` names, read-only, at its own place

Nothing else of the host is there: not its other directories, not the supervisor's, not the
store. The root directory itself is read-only: nothing is kept in memory without a limit.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from leasehold_bubblewrap.engine import INSIDE, NAMESPACES

WORK: Final = "/work"
HOME: Final = "/home/sandbox"
TEMPORARY: Final = "/tmp"  # noqa: S108 - the sandbox's own
_MIB: Final = 1024 * 1024
_SHM_MB: Final = 64

FILES: Final[tuple[tuple[str, bytes], ...]] = (
    (
        "/etc/passwd",
        b"root:x:0:0:root:/:/usr/sbin/nologin\n"
        b"sandbox:x:%d:%d:sandbox:%s:/bin/sh\n"
        % (INSIDE, INSIDE, HOME.encode())
        + b"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", b"root:x:0:\nsandbox:x:%d:\nnogroup:x:65534:\n" % INSIDE),
    ("/etc/hosts", b"127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
)
"""Small files that are made up, the same in every sandbox."""

_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = (
    *("alternatives", "ld.so.cache", "ssl/certs", "ssl/openssl.cnf", "ca-certificates"),
    *("pki/tls/certs", "pki/ca-trust/extracted", "crypto-policies"),
)
"""Names below /etc that programs need and that tell nothing of the host's users."""

_ETC_OF_THE_NETWORK: Final = ("resolv.conf", "services", "protocols", "gai.conf")


@cache
def system() -> tuple[str, ...]:
    """Return the mounts of the host's programs; they do not change while a worker lives."""
    return tuple(_system())


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _TOP:
        path = f"/{name}"
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    yield from ("--perms", "0755", "--dir", "/etc")
    yield from _etc(_ETC)
    if os.path.islink("/etc/localtime"):
        yield from ("--symlink", os.path.realpath("/etc/localtime"), "/etc/localtime")


def _etc(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if os.path.exists(f"/etc/{name}"):
            yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")


def arguments(
    *,
    rooms: Sequence[tuple[str, str]],
    ro_binds: Sequence[str],
    network: bool,
    tmp_mb: int,
) -> list[str]:
    """
    Return what `bwrap` is told, all but the made-up files and the end.

    Args:
        rooms: Pairs of a directory of the lease's, as `bwrap` reaches it, and its place inside.
        ro_binds: Paths of the host's, checked already.
        network: Whether the host's network is shared.
        tmp_mb: The size of /tmp.
    """
    found = [*NAMESPACES, *system()]
    if network:
        found += _etc(_ETC_OF_THE_NETWORK)
    else:
        found.append("--unshare-net")
    found += ["--proc", "/proc", "--dev", "/dev"]
    found += ["--perms", "1777", "--size", str(_SHM_MB * _MIB), "--tmpfs", "/dev/shm"]  # noqa: S108
    found += ["--remount-ro", "/dev"]
    found += ["--perms", "1777", "--size", str(tmp_mb * _MIB), "--tmpfs", TEMPORARY]
    for folder in ("/var", "/run", "/home"):
        found += ["--perms", "0755", "--dir", folder]
    found += ["--symlink", "/tmp", "/var/tmp", "--symlink", "/run", "/var/run"]  # noqa: S108
    for path in ro_binds:
        found += ["--ro-bind", os.path.realpath(path), path]
    for source, place in rooms:
        found += ["--bind", source, place]
    return [*found, "--chdir", "/"]
