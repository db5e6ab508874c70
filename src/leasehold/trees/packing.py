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
from collections.abc import Iterator
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
    packed, out, total = Packed(), _Writer(target), 0
    for path, full, seen in _walk(root, packed, home=home, ignore=ignore):
        info = tarfile.TarInfo(path)
        info.mtime = DATE
        if stat.S_ISDIR(seen.st_mode):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        elif stat.S_ISLNK(seen.st_mode):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, str(full.readlink())
        else:
            total += _add_file(out, info, full, packed, left=limits.bytes - total)
        if not info.isreg():
            out.write(_head(info))
        packed.files += 1
        if packed.files > limits.files:
            raise BadInputError(f"{root} has more than {limits.files} files; ignore some")
    out.write(bytes(2 * _BLOCK))
    packed.digest, packed.bytes = out.digest(), out.size
    return packed


def _add_file(
    out: _Writer, info: tarfile.TarInfo, full: Path, packed: Packed, *, left: int
) -> int:
    """Write one file and return its size; one that cannot be read is left out."""
    try:
        handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        packed.left_out.append((info.name, error.strerror or "cannot be read"))
        return 0
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(file.fileno())
        info.size = seen.st_size
        info.mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
        if info.size > left:
            raise BadInputError(f"the workspace is too big at {info.name!r}; ignore some of it")
        out.write(_head(info))
        rest = info.size
        while rest > 0:
            part = file.read(min(rest, _PART))
            if not part:
                raise BadInputError(f"{info.name!r} shrank while it was packed; try again")
            rest -= len(part)
            out.write(part)
        out.write(bytes(-info.size % _BLOCK))
    return info.size


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _walk(
    root: Path, packed: Packed, *, home: Path | None, ignore: bool
) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield what belongs to the tree, each directory before what is in it."""
    ignored = Ignored()
    away = home.resolve() if home is not None else None
    todo = [("", root)]
    while todo:
        path, full = todo.pop()
        try:
            entries = sorted(os.scandir(full), key=lambda entry: entry.name)
        except OSError as error:
            if not path:
                raise BadInputError(f"{root} cannot be read: {error.strerror}") from None
            packed.left_out.append((path, error.strerror or "cannot be read"))
            continue
        if ignore:
            ignored.add(path, _ignore_files(full, {entry.name for entry in entries}))
        below = []
        for entry in entries:
            here = f"{path}/{entry.name}" if path else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            if ignored.says(here, is_directory=is_directory):
                continue
            place = Path(entry.path)
            if is_directory and away is not None and place.resolve() == away:
                continue
            if why := _unfit(entry, here):
                packed.left_out.append((here, why))
                continue
            yield here, place, entry.stat(follow_symlinks=False)
            if is_directory:
                below.append((here, place))
        todo += reversed(below)


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
