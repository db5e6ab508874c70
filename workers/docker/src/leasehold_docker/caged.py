"""
The caged end of a transfer: a process that sees the sandbox's work directory and nothing else.

What a command left in its directory cannot be trusted: a link may point anywhere, and may be
put in place between a look and a use. So whoever touches it on the host changes its root to
that directory first, and becomes the command's user. A link then leads nowhere but back inside,
and what can be read or overwritten is what the command could read or overwrite itself.

Usage: python -I -S caged.py ROOT UID GID VERB PATH MODE. Bytes come on stdin (see `Parcel`) or
go to stdout. Exit code 3: the path cannot be used, 4: the disk refused; the reason is on
stderr.
"""

import errno
import os
import stat
import sys
import tarfile
from contextlib import suppress
from typing import BinaryIO, Final, NoReturn, cast

_CHUNK: Final = 256 * 1024
_OF_THE_PATH: Final = frozenset({errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP})


class RefusedError(Exception):
    """The path is not what the verb needs."""


class Parcel:
    """
    Bytes on stdin, in parts of known length; an empty part is the end.

    Our caller may be killed: then the stream just stops, and what came is not all there was.
    """

    def __init__(self) -> None:
        self._left = 0
        self._over = False

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        wanted = size if size >= 0 else sys.maxsize
        while wanted and not self._over:
            if not self._left:
                self._left = int.from_bytes(self._take(4), "big")
                self._over = not self._left
                continue
            part = self._take(min(wanted, self._left, _CHUNK))
            self._left -= len(part)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    @staticmethod
    def _take(size: int) -> bytes:
        data = sys.stdin.buffer.read(size)
        if len(data) < size:
            raise OSError(errno.EPIPE, "the caller is gone")
        return data


def _enter(root: str, uid: int, gid: int) -> None:
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o022)


def _chunks(source: BinaryIO) -> None:
    while data := source.read(_CHUNK):
        sys.stdout.buffer.write(data)


def put(path: str, mode: int) -> None:
    """Write one file aside, then rename it: whoever reads it sees the old or the new one."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        raise RefusedError("is a directory")
    aside = os.path.join(folder, f".leasehold.{os.urandom(8).hex()}")
    try:
        with open(aside, "xb") as file:
            parcel = Parcel()
            while data := parcel.read(_CHUNK):
                file.write(data)
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
        os.rename(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise


def unpack(path: str, _mode: int) -> None:
    os.makedirs(path, exist_ok=True)
    with tarfile.open(fileobj=cast("BinaryIO", Parcel()), mode="r|") as tar:
        # Links are kept as they are: here they lead nowhere else.
        tar.extraction_filter = lambda member, _: member.replace(
            mode=member.mode & 0o777 if member.mode is not None else None, deep=False
        )
        tar.extractall(path)  # noqa: S202  in the cage


def get(path: str, _mode: int) -> None:
    # Non-blocking: a pipe with that name would wait for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise RefusedError("is no file")
        sys.stdout.buffer.write(b"!")
        _chunks(file)


def pack(path: str, _mode: int) -> None:
    if not os.path.isdir(path):
        raise RefusedError("is no directory")
    os.chdir(path)
    sys.stdout.buffer.write(b"!")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder, folders, files in os.walk("."):
            folders.sort()
            for name in sorted((*folders, *files)):
                _add(tar, os.path.join(folder, name))


def _add(tar: tarfile.TarFile, name: str) -> None:
    """Add one member; what vanished, may not be read or is a device or pipe is left out."""
    with suppress(FileNotFoundError, PermissionError):
        info = tar.gettarinfo(name)
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.isreg():
            with open(name, "rb") as file:
                tar.addfile(info, file)
        elif info.isdir() or info.issym() or info.islnk():
            tar.addfile(info)


def main(arguments: list[str]) -> NoReturn:
    root, uid, gid, verb, path, mode = arguments
    verbs = {"put": put, "unpack": unpack, "get": get, "pack": pack}
    code, reason = 0, ""
    try:
        _enter(root, int(uid), int(gid))
        verbs[verb](f"/{path}", int(mode, 8))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        code = 4
    except (RefusedError, NotADirectoryError, FileNotFoundError, IsADirectoryError) as error:
        code, reason = 3, str(error)
    except (PermissionError, tarfile.TarError) as error:
        code, reason = 3, str(error)
    except OSError as error:
        # A link that leads nowhere, or in circles, is the path's fault; a full disk is not.
        code, reason = 3 if error.errno in _OF_THE_PATH else 4, str(error)
    with suppress(OSError):
        os.write(2, reason.encode(errors="replace"))
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
