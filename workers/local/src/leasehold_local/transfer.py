"""
Files into and out of a sandbox. Paths count from `work`; nothing outside of it is reached.

A path is resolved first (a link that leads out is refused) and then walked directory by
directory without following links, so a directory that is swapped for a link in between is
refused too. A file is written aside, on the same file system, and renamed: whoever reads it
sees the old or the new one. A tree is unpacked aside as well, where no command can put links in
its way, and then moved in entry by entry; if we die in between, the same `put` again mends it.

Where commands have a uid of their own (`owner`), what is put belongs to it.
"""

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from leasehold.provider import Budget, ConfigRejectedError, effect
from leasehold.provider.archive import extract

from leasehold_local.layout import disk

_CHUNK: Final = 256 * 1024
_BLOCK: Final = 512
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _parts(sandbox: str, path: str) -> tuple[str, list[str]]:
    """Return the real root and the components below it."""
    if not path or "\0" in path:
        raise ConfigRejectedError("a path cannot be empty or hold NUL")
    root = os.path.realpath(f"{sandbox}/work")
    folder, leaf = os.path.split(os.path.join(root, path).rstrip("/"))
    if leaf in {"", ".", ".."}:
        folder, leaf = os.path.join(folder, leaf), ""
    real = os.path.realpath(folder)
    inside = real == root or real.startswith(f"{root}/")
    if ".." in path.split("/") or not inside:
        if os.path.join(folder, leaf).rstrip("/") == root:
            return root, []
        raise ConfigRejectedError(f"{path!r} leads out of the sandbox")
    below = [part for part in real[len(root) :].split("/") if part]
    return root, [*below, leaf] if leaf else below


@contextlib.contextmanager
def _directory(
    root: str, parts: list[str], *, make: bool, owner: int | None = None
) -> Iterator[int]:
    """Open the directory at `parts` without following a link; make what is missing if asked."""
    handle = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
                    _give(part, owner, handle)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=handle)
            except (NotADirectoryError, FileNotFoundError) as error:
                raise ConfigRejectedError(f"no directory {'/'.join(parts)!r}") from error
            except OSError as error:
                text = f"{'/'.join(parts)!r} leads through a link"
                raise ConfigRejectedError(text) from error
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _give(name: str, owner: int | None, folder: int) -> None:
    if owner is not None:
        os.chown(name, owner, owner, dir_fd=folder, follow_symlinks=False)


def write(
    sandbox: str,
    path: str,
    source: BinaryIO,
    mode: int,
    budget: Budget,
    *,
    still: Callable[[], None],
    owner: int | None = None,
) -> None:
    """Write one file, at once; `still` is asked last whether its caller may."""
    root, parts = _parts(sandbox, path)
    if not parts:
        raise ConfigRejectedError(f"{path!r} is a directory")
    aside = f"{sandbox}/ctl/spool/{os.urandom(8).hex()}"
    with disk(f"writing {path!r}", sandbox):
        try:
            with effect("local:put_aside"), open(aside, "xb") as file:
                while data := source.read(_CHUNK):
                    budget.check()
                    file.write(data)
                if owner is not None:
                    os.fchown(file.fileno(), owner, owner)
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            with _directory(root, parts[:-1], make=True, owner=owner) as folder:
                if _is_directory(folder, parts[-1]):
                    raise ConfigRejectedError(f"{path!r} is a directory")
                still()
                with effect("local:put"):
                    os.rename(aside, parts[-1], dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)


def _is_directory(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def unpack(
    sandbox: str,
    path: str,
    source: BinaryIO,
    budget: Budget,
    *,
    still: Callable[[], None],
    owner: int | None = None,
) -> None:
    """
    Unpack a tar stream below `path`; a member that would leave it refuses the whole.

    Reading a stream takes long: `still` is asked before anything of it can be seen.
    """
    root, parts = _parts(sandbox, path)
    aside = f"{sandbox}/ctl/spool/{os.urandom(8).hex()}"
    with disk(f"unpacking below {path!r}", sandbox):
        try:
            with effect("local:unpack_aside"):
                os.mkdir(aside, 0o700)
                _extract(source, aside, budget)
            with (
                _directory(root, parts, make=True, owner=owner) as folder,
                _directory(aside, [], make=False) as found,
                effect("local:unpack"),
            ):
                if owner is not None:
                    for _, folders, files, handle in os.fwalk(".", dir_fd=found):
                        for name in (*folders, *files):
                            _give(name, owner, handle)
                still()
                _move_in(found, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _extract(source: BinaryIO, target: str, budget: Budget) -> None:
    try:
        with tarfile.open(fileobj=source, mode="r|*") as tar:
            for member in tar:
                budget.check()
                if member.name.startswith("/"):
                    text = f"the tar stream is refused: {member.name!r} is absolute"
                    raise ConfigRejectedError(text)
                _check(member, target)
                extract(tar, member, target, mode=_mode(member))
    except tarfile.TarError as error:
        raise ConfigRejectedError(f"the tar stream is refused: {error}") from error


def _move_in(source: int, target: int) -> None:
    """Move all entries of one directory into another, merging directories."""
    for name in os.listdir(source):
        try:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                _merge(name, source, target)
            elif error.errno in {errno.ENOTDIR, errno.EISDIR}:
                text = f"the tree and the sandbox disagree whether {name!r} is a directory"
                raise ConfigRejectedError(text) from error
            else:
                raise


def _merge(name: str, source: int, target: int) -> None:
    ours = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        theirs = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            os.fchmod(theirs, stat.S_IMODE(os.fstat(ours).st_mode))
            _move_in(ours, theirs)
        finally:
            os.close(theirs)
    finally:
        os.close(ours)


def _check(member: tarfile.TarInfo, target: str) -> None:
    """Refuse a member that would leave the tree, lead out of it, or is no plain thing."""
    places = [member.name]
    if member.issym():
        if member.linkname.startswith("/"):
            raise ConfigRejectedError(f"the tar stream is refused: {member.name!r} leads out")
        places.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        places.append(member.linkname)
    elif not (member.isreg() or member.isdir()):
        raise ConfigRejectedError(f"the tar stream is refused: {member.name!r} is a device")
    real = os.path.realpath(target)
    for place in places:
        if os.path.commonpath([real, os.path.realpath(os.path.join(real, place))]) != real:
            raise ConfigRejectedError(f"the tar stream is refused: {member.name!r} leads out")


def _mode(member: tarfile.TarInfo) -> int:
    """Return a member's own mode, with which we can still move it."""
    ours = stat.S_IRWXU if member.isdir() else stat.S_IRUSR | stat.S_IWUSR
    return (member.mode & 0o777) | ours


def read(sandbox: str, path: str, budget: Budget) -> Iterator[bytes]:
    """Read one file; the errors of opening it come at once, not with the first chunk."""
    root, parts = _parts(sandbox, path)
    real = os.path.realpath(os.path.join(root, *parts))
    if not real.startswith(f"{root}/"):
        raise ConfigRejectedError(f"{path!r} leads out of the sandbox")
    names = real[len(root) + 1 :].split("/")
    with disk(f"reading {path!r}", sandbox), _directory(root, names[:-1], make=False) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(names[-1], flags, dir_fd=folder)
        except FileNotFoundError as error:
            raise ConfigRejectedError(f"no file {path!r}") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ConfigRejectedError(f"{path!r} is no file")
    return _chunks(handle, budget)


def _chunks(handle: int, budget: Budget) -> Iterator[bytes]:
    with open(handle, "rb") as file:
        while data := file.read(_CHUNK):
            budget.check()
            yield data


def pack(sandbox: str, path: str, budget: Budget) -> Iterator[bytes]:
    """Return a tar stream of what is below `path`; links are kept as links."""
    root, parts = _parts(sandbox, path)
    with disk(f"packing {path!r}", sandbox), _directory(root, parts, make=False) as folder:
        top = os.dup(folder)
    return _tar(top, budget)


def _tar(top: int, budget: Budget) -> Iterator[bytes]:
    try:
        for path, folders, files, folder in os.fwalk(".", dir_fd=top):
            folders.sort()
            for name in sorted((*folders, *files)):
                budget.check()
                yield from _member(name, folder, os.path.normpath(f"{path}/{name}"))
        yield bytes(2 * _BLOCK)
    finally:
        os.close(top)


def _member(name: str, folder: int, path: str) -> Iterator[bytes]:
    """Yield one member; what vanished or is neither file, directory nor link is left out."""
    try:
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = stat.S_IMODE(seen.st_mode), int(seen.st_mtime)
    if stat.S_ISDIR(seen.st_mode):
        info.type = tarfile.DIRTYPE
        yield _head(info)
    elif stat.S_ISLNK(seen.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=folder)
        yield _head(info)
    elif stat.S_ISREG(seen.st_mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=folder), "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            yield _head(info)
            left = info.size
            while left > 0:
                # A file that shrinks meanwhile is filled up, else the stream would be broken.
                data = file.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                left -= len(data)
                yield data
        yield bytes(-info.size % _BLOCK)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
