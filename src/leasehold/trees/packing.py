"""
A directory as one tar stream that is the same for the same files.

Names in order, no owner, one date, and of the mode only whether a file can be executed, as git
has it: so an unchanged directory has an unchanged digest, is stored once and unpacked once.
What is neither file, directory nor link, or a link that leads outside, is left out and said;
so is what cannot be read. A directory that changes while it is packed gives a mixture, as any
copy of it would; a file that shrinks is refused, since its header has gone before.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from leasehold.errors import BadInputError
from leasehold.trees import ignoring
from leasehold.trees.ignoring import Ignored
from leasehold.trees.reading import MAX_PATH_BYTES, Limits, stays_inside

DATE: Final = 946_684_800
"""2000-01-01: zip files know no date before 1980."""

_BLOCK: Final = 512
_PART: Final = 1024 * 1024


@dataclass(slots=True)
class Packed:
    """What a packed tree is."""

    digest: str = ""
    bytes: int = 0
    """Of the stream, as it lies in the store."""

    files: int = 0
    """Members of any kind."""

    plain: int = 0
    """Of them, those that are files or links."""

    content_bytes: int = 0
    """Of all files."""

    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Paths and why; ignored ones are not among them."""


class _Writer:
    """Writes, hashes and counts."""

    def __init__(self, target: BinaryIO) -> None:
        self._target, self._seen = target, hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._target.write(data)
        self._seen.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return self._seen.hexdigest()


def pack(
    root: Path,
    target: BinaryIO,
    limits: Limits,
    *,
    home: Path | None = None,
    ignore: bool = True,
) -> Packed:
    """
    Write the tree of a directory into `target`.

    Args:
        home: An embedded home: it may lie inside, and is no part of the tree.
        ignore: False: ignore files are files like any other.

    Raises:
        BadInputError: It is no directory, cannot be read, or is beyond a limit.
    """
    packed = Packed()
    members = _walk(root, packed, home=home, ignore=ignore)
    try:
        return _write(members, target, packed, limits)
    except _TooMuchError as error:
        raise BadInputError(f"{root}: {error}; ignore some of it") from None


def pack_these(
    sources: Mapping[str, Path], target: BinaryIO, limits: Limits, *, home: Path | None = None
) -> Packed:
    """
    Write files and directories into one tree, with everything that is in them.

    Args:
        sources: Real paths by their names; what is in a directory without one is at the root.
        home: An embedded home, with its keys: it is left out, and that is said.

    Raises:
        BadInputError: One of them cannot be read, or all are beyond a limit.
    """
    packed = Packed()
    return _write(_these(sources, packed, home), target, packed, limits)


def _these(
    sources: Mapping[str, Path], packed: Packed, home: Path | None
) -> Iterator[tuple[str, Path, os.stat_result]]:
    for name, path in sources.items():
        if name:
            yield name, path, path.lstat()
        if path.is_dir():
            yield from _walk(path, packed, home=home, ignore=None, below=name)


class _TooMuchError(BadInputError):
    """It is beyond a limit."""


def _write(
    members: Iterator[tuple[str, Path, os.stat_result]],
    target: BinaryIO,
    packed: Packed,
    limits: Limits,
) -> Packed:
    out = _Writer(target)
    for path, full, seen in members:
        info = tarfile.TarInfo(path)
        info.mtime = DATE
        if stat.S_ISDIR(seen.st_mode):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        elif stat.S_ISLNK(seen.st_mode):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, str(full.readlink())
        else:
            _add_file(out, info, full, packed, most=limits.bytes)
        if not info.isreg():
            out.write(_head(info))
            packed.plain += info.issym()
        packed.files += 1
        if packed.files > limits.files:
            raise _TooMuchError(f"more than {limits.files} files")
    out.write(bytes(2 * _BLOCK))
    packed.digest, packed.bytes = out.digest(), out.size
    return packed


def _add_file(
    out: _Writer, info: tarfile.TarInfo, full: Path, packed: Packed, *, most: int
) -> None:
    """Write one file; one that cannot be read is left out."""
    try:
        handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        packed.left_out.append((info.name, error.strerror or "cannot be read"))
        return
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(file.fileno())
        info.size = seen.st_size
        info.mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
        if packed.content_bytes + info.size > most:
            raise _TooMuchError(f"more than {most} bytes, at {info.name!r}")
        out.write(_head(info))
        rest = info.size
        while rest > 0:
            part = file.read(min(rest, _PART))
            if not part:
                raise BadInputError(f"{info.name!r} shrank while it was packed; try again")
            rest -= len(part)
            out.write(part)
        out.write(bytes(-info.size % _BLOCK))
    packed.content_bytes += info.size
    packed.plain += 1


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _walk(
    root: Path, packed: Packed, *, home: Path | None, ignore: bool | None, below: str = ""
) -> Iterator[tuple[str, Path, os.stat_result]]:
    """
    Yield what belongs to the tree, each directory before what is in it.

    Args:
        ignore: As of `pack`; None: nothing at all is ignored, and a home is said.
    """
    ignored = Ignored()
    away = home.resolve() if home is not None else None
    todo = [(below, root)]
    while todo:
        path, full = todo.pop()
        entries = _entries(path, full, packed, is_root=full is root)
        if ignore:
            ignored.add(path, _ignore_files(full, {entry.name for entry in entries}))
        deeper = []
        for entry in entries:
            here = f"{path}/{entry.name}" if path else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            if ignore is not None and ignored.says(here, is_directory=is_directory):
                continue
            place = Path(entry.path)
            if is_directory and away is not None and place.resolve() == away:
                if ignore is None:
                    packed.left_out.append((here, "the home of an embedded stack"))
                continue
            if why := _unfit(entry, here):
                packed.left_out.append((here, why))
                continue
            yield here, place, entry.stat(follow_symlinks=False)
            if is_directory:
                deeper.append((here, place))
        todo += reversed(deeper)


def _entries(
    path: str, full: Path, packed: Packed, *, is_root: bool
) -> "list[os.DirEntry[str]]":
    """List a directory; one that cannot be read is left out, unless it is all there is."""
    try:
        return sorted(os.scandir(full), key=lambda entry: entry.name)
    except OSError as error:
        if is_root:
            raise BadInputError(f"{full} cannot be read: {error.strerror}") from None
        packed.left_out.append((path, error.strerror or "cannot be read"))
        return []


def _ignore_files(folder: Path, names: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name in ignoring.FILES:
        if name in names and (folder / name).is_file():
            with (folder / name).open("rb") as file:
                texts[name] = file.read(ignoring.MAX_BYTES).decode(errors="replace")
    return texts


def _unfit(entry: "os.DirEntry[str]", path: str) -> str | None:
    """Say why something cannot be part of a tree."""
    try:
        if len(path.encode()) > MAX_PATH_BYTES:
            return "its path is too long"
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if entry.is_symlink():
        target = str(Path(entry.path).readlink())
        return None if stays_inside(path, target) else f"a link that leads outside ({target})"
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return None
    return "neither file, directory nor link"
