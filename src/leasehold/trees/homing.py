"""
Bring home what a run changed in its tree: into a directory that a person works in.

The lines come from a store and were written by a command that nobody trusts, so every path is
walked directory by directory without following a link, and nothing outside the root is ever
touched. Nor is a person's own work: a file is replaced or removed only if it still is what was
packed; if it has changed meanwhile, theirs is written beside it as ``NAME.leasehold-theirs``.
Each file is written aside and renamed. Killed in between: the same call again goes on, since
what is home already is recognized by its content.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from leasehold.errors import HostileTreeError
from leasehold.trees.comparing import LINK, PART
from leasehold.trees.reading import inside, stays_inside

THEIRS: Final = ".leasehold-theirs"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Fetch = Callable[[str, BinaryIO], object]
"""Writes the content with this SHA-256 into a file."""


@dataclass(slots=True)
class Report:
    """What was done."""

    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """Changed here meanwhile: left as they are."""

    refused: list[str] = field(default_factory=list)
    """Paths that cannot be reached without leaving the directory."""


def bring(root: Path, lines: Sequence[Any], fetch: Fetch) -> Report:
    """Apply lines of `changed` and `deleted` to a directory."""
    report = Report()
    for line in lines:
        path = line["path"]
        try:
            _bring_one(root, line, fetch, report)
        except (HostileTreeError, OSError):
            report.refused.append(path)
    return report


def _bring_one(root: Path, line: Any, fetch: Fetch, report: Report) -> None:
    path = inside(line["path"])
    if not path or any(part == ".git" for part in path.split("/")):
        raise HostileTreeError(f"{path!r} is no file of a tree")
    parts, gone = path.split("/"), line["kind"] == "deleted"
    wanted = None if gone else line["sha256"] or f"{LINK}{line['link']}"
    if line["link"] is not None and not stays_inside(path, line["link"]):
        raise HostileTreeError(f"the link {path!r} leads outside")
    try:
        with _folder(root, parts[:-1], make=not gone) as folder:
            here = _content(folder, parts[-1])
            if here == wanted:
                if line["sha256"] is not None:
                    _set_mode(folder, parts[-1], line["mode"])
                    report.changed.append(path)
                return
            if here != line["base"]:
                report.conflicts.append(path)
                if not gone:
                    _write(folder, parts[-1] + THEIRS, line, fetch)
                return
            if gone:
                os.unlink(parts[-1], dir_fd=folder)
                report.deleted.append(path)
                return
            _write(folder, parts[-1], line, fetch)
            report.changed.append(path)
    except FileNotFoundError:
        if not gone:
            raise


@contextmanager
def _folder(root: Path, parts: list[str], *, make: bool) -> Iterator[int]:
    """Open a directory below the root, step by step, never through a link."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
            below = os.open(part, _DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _content(folder: int, name: str) -> str | None:
    """Return what is there now: a SHA-256, a link with its target, or nothing."""
    try:
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(seen.st_mode):
        return LINK + os.readlink(name, dir_fd=folder)
    if not stat.S_ISREG(seen.st_mode):
        return "something else"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    found = hashlib.sha256()
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        while part := file.read(PART):
            found.update(part)
    return found.hexdigest()


def _set_mode(folder: int, name: str, mode: int) -> None:
    seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if bool(seen.st_mode & stat.S_IXUSR) != bool(mode & stat.S_IXUSR):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(name, flags, dir_fd=folder)
        try:
            os.fchmod(handle, 0o755 if mode & stat.S_IXUSR else 0o644)
        finally:
            os.close(handle)


def _write(folder: int, name: str, line: Any, fetch: Fetch) -> None:
    """Make a file or link, aside first, then at once under its name."""
    aside = f".leasehold-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        if line["link"] is not None:
            os.symlink(line["link"], aside, dir_fd=folder)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            mode = 0o755 if line["mode"] & stat.S_IXUSR else 0o644
            with os.fdopen(os.open(aside, flags, mode, dir_fd=folder), "wb") as file:
                fetch(line["sha256"], file)
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=folder)


def write_out(root: Path, path: str, line: Any, fetch: Fetch) -> None:
    """
    Write one kept file or link below a directory, whatever is there.

    Raises:
        HostileTreeError: Its path leads outside, or the link does.
        OSError: It cannot be written, or leads through a link.
    """
    parts = inside(path).split("/")
    if line["link"] is not None and not stays_inside(path, line["link"]):
        raise HostileTreeError(f"the link {path!r} leads outside")
    with _folder(root, parts[:-1], make=True) as folder:
        _write(folder, parts[-1], line, fetch)
