"""Tar streams from outside: looked through before a sandbox unpacks them."""

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
