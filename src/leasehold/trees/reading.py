"""
Tar streams that nobody trusts, member by member.

What goes into a sandbox was sent by somebody, and what comes out of one was written by a
command that may be hostile, perhaps by a `tar` of its own. Nothing here is unpacked onto a
disk of ours: a member is a name, a kind and bytes. The whole stream is refused if a name leaves
its root, if a member lies below a link, or if it is beyond a limit, which is counted while it
is read. Headers are bounded too: a name of a gigabyte would fill our memory first.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any, BinaryIO, Final, cast

from leasehold.errors import HostileTreeError

MAX_PATH_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 64 * 1024
_HEADERS: Final = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tree may hold."""

    files: int
    """Members of any kind."""

    bytes: int
    """Of all its files."""


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    SAME = "same"
    """A hard link: the same file as an earlier member, `target`."""

    OTHER = "other"
    """A device, a pipe, a socket."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tree, with a path that stays inside."""

    path: str
    kind: Kind
    mode: int
    bytes: int
    target: str = ""
    """Of a link: as it is written; of a hard link: a path of the tree."""


class _Bounded(tarfile.TarInfo):
    """A header that is refused before anything is read for it."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > _MAX_HEADER_BYTES:
            raise HostileTreeError(f"a header of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE or self.size < 0:
            raise HostileTreeError("a sparse file, or one of less than no bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # tarfile's own door for this
        return found


class Content:
    """What one file holds; it ends where its header said, or the whole is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """
        Return up to so many bytes.

        Raises:
            HostileTreeError: The stream ended before.
        """
        try:
            return self._file.read(size)
        except (tarfile.TarError, EOFError) as error:
            raise HostileTreeError(f"no tar stream: {error}") from error


def members(source: BinaryIO, limits: Limits) -> Iterator[tuple[Member, Content | None]]:
    """
    Yield each member, and of a file what it holds, to be read before the next one is asked for.

    Raises:
        HostileTreeError: It leads outside, is beyond a limit, or is no tar stream.
    """
    links: set[str] = set()
    count = size = 0
    try:
        with tarfile.open(fileobj=source, mode="r|", tarinfo=_Bounded) as tar:
            for info in tar:
                # A stream remembers all its members otherwise.
                cast("Any", tar).members.clear()
                count += 1
                size += info.size
                _check_count(count, size, limits)
                if (member := _member(info)) is None:
                    continue
                _check_above(member.path, links)
                if member.kind is Kind.LINK:
                    links.add(member.path)
                file = tar.extractfile(info) if member.kind is Kind.FILE else None
                yield member, Content(file) if file is not None else None
    except HostileTreeError:
        raise
    except (tarfile.TarError, RecursionError, EOFError, ValueError, OverflowError) as error:
        raise HostileTreeError(f"no tar stream: {error}") from error


def _check_count(count: int, size: int, limits: Limits) -> None:
    if count > limits.files:
        raise HostileTreeError(f"more than {limits.files} files")
    if size > limits.bytes:
        raise HostileTreeError(f"more than {limits.bytes} bytes")


def _member(info: tarfile.TarInfo) -> Member | None:
    """Return a checked member; None for the root itself."""
    path = inside(info.name)
    if info.issparse():
        raise HostileTreeError(f"{path!r} is a sparse file")
    mode = info.mode & 0o777
    if info.isreg():
        kind, target = Kind.FILE, ""
    elif info.isdir():
        kind, target = Kind.DIRECTORY, ""
    elif info.issym():
        kind, target = Kind.LINK, info.linkname
    elif info.islnk():
        kind, target = Kind.SAME, inside(info.linkname)
    else:
        kind, target = Kind.OTHER, ""
    if not path:
        if kind is Kind.DIRECTORY:
            return None
        raise HostileTreeError("the root is no directory")
    return Member(path, kind, mode, info.size if kind is Kind.FILE else 0, target)


def inside(name: str) -> str:
    """
    Return a member's path below the root, in its plain form; the root itself is empty.

    Raises:
        HostileTreeError: It leads outside, or is no path.
    """
    if "\0" in name or len(name.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
        raise HostileTreeError("a name holds NUL or is too long")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise HostileTreeError(f"the member {name!r} leads outside")
    return "/".join(part for part in parts if part not in {"", "."})


def _check_above(path: str, links: set[str]) -> None:
    parts = path.split("/")
    if links and any("/".join(parts[:end]) in links for end in range(1, len(parts))):
        raise HostileTreeError(f"the member {path!r} is below a link")


def stays_inside(path: str, target: str) -> bool:
    """
    Return whether a link at `path` leads to a place below the root, whatever links there are.

    Upwards only at its beginning: what ``..`` means after a name depends on whether that
    name is a link, and ``a -> .`` with ``b -> a/..`` would lead outside.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ups <= path.count("/") and ".." not in parts[ups:]


def check(source: BinaryIO, limits: Limits) -> int:
    """
    Look through a tree that is to go into a sandbox; leaves `source` at its beginning.

    Returns how many members it has.

    Raises:
        HostileTreeError: It would leave its root, or holds what no tree of ours does.
    """
    source.seek(0)
    count = 0
    for member, _ in members(source, limits):
        count += 1
        if member.kind in {Kind.OTHER, Kind.SAME}:
            raise HostileTreeError(f"{member.path!r} is neither file, directory nor link")
        if member.kind is Kind.LINK and not stays_inside(member.path, member.target):
            raise HostileTreeError(f"the link {member.path!r} leads outside")
    source.seek(0)
    return count
