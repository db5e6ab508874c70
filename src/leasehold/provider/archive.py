"""Tar streams from outside: looked through before a sandbox unpacks them."""

import copy
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

from leasehold.errors import ConfigRejectedError

_IN_MEMORY: Final = 8 * 1024 * 1024
_COPY: Final = 1024 * 1024


@contextmanager
def checked_tree(source: BinaryIO) -> Iterator[BinaryIO]:
    """
    Spool a tar stream and yield it from its beginning, if it can be unpacked safely.

    A link may point anywhere, as in the tree it was made from; no member may be reached
    through one, so unpacking never leaves the directory.

    Raises:
        ConfigRejectedError: Not a tar, or a member that leads outside or is a device.
    """
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        while part := source.read(_COPY):
            spool.write(part)
        spool.seek(0)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", spool), mode="r:") as tar:
                _check(tar)
        except tarfile.TarError as error:
            raise ConfigRejectedError(f"not a tar stream: {error}") from error
        spool.seek(0)
        yield cast("BinaryIO", spool)


def extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, *, mode: int | None = None
) -> None:
    """
    Unpack one member that was looked through, as ours; the same on every Python.

    The filters of `tarfile` came with 3.11.4 and changed their default later, so none is
    relied on: whoever calls this has decided that the member stays inside.
    """
    # A newer Python asks; an older one knows no such attribute and lets everything through.
    tar.extraction_filter = _as_it_is
    plain = copy.copy(member)
    plain.uid, plain.gid, plain.uname, plain.gname = os.geteuid(), os.getegid(), "", ""
    if mode is not None:
        plain.mode = mode
    tar.extract(plain, target)


def _as_it_is(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    return member


def _check(tar: tarfile.TarFile) -> None:
    links: set[PurePosixPath] = set()
    for member in tar:
        names = [member.name, *([member.linkname] if member.islnk() else [])]
        for path in map(PurePosixPath, names):
            if path.is_absolute() or ".." in path.parts:
                raise ConfigRejectedError(f"the tree's member {member.name!r} leads outside")
            if links.intersection(path.parents):
                raise ConfigRejectedError(f"the tree's member {member.name!r} is below a link")
        if member.issym():
            links.add(PurePosixPath(member.name))
        elif not (member.isreg() or member.isdir() or member.islnk()):
            raise ConfigRejectedError(f"the tree's member {member.name!r} is a device or pipe")
