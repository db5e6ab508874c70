"""What a tree held when it was packed, to tell later what a run has changed in it."""

import hashlib
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from leasehold.trees import ignoring
from leasehold.trees.ignoring import Ignored
from leasehold.trees.reading import Content, Kind, Limits, members

PART: Final = 1024 * 1024
LINK: Final = "link:"
"""Before a link's target, where a file has its SHA-256."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or link of the tree."""

    content: str
    """SHA-256, or `LINK` and the target."""

    executable: bool = False


@dataclass(slots=True)
class Base:
    """A packed tree as it was: its files and links by their paths, and its ignore rules."""

    entries: dict[str, Entry] = field(default_factory=dict)
    ignored: Ignored = field(default_factory=Ignored)


def base_of(source: BinaryIO, limits: Limits) -> Base:
    """
    Read a packed tree.

    Raises:
        HostileTreeError: It is none.
    """
    base = Base()
    texts: dict[str, dict[str, str]] = {}
    for member, content in members(source, limits):
        folder, _, name = member.path.rpartition("/")
        if member.kind is Kind.LINK:
            base.entries[member.path] = Entry(LINK + member.target)
        elif content is not None:
            head = _Head()
            digest = hashed(content, head)
            base.entries[member.path] = Entry(digest, executable=bool(member.mode & 0o100))
            if name in ignoring.FILES:
                texts.setdefault(folder, {})[name] = head.data.decode(errors="replace")
    for folder, files in texts.items():
        base.ignored.add(folder, files)
    return base


class _Head:
    """Keeps the beginning of what is written to it: enough of an ignore file."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, part: bytes) -> None:
        room = ignoring.MAX_BYTES - len(self.data)
        if room > 0:
            self.data += part[:room]


def hashed(source: Content, target: "_Head | BinaryIO") -> str:
    """Copy a file and return its SHA-256."""
    seen = hashlib.sha256()
    while part := source.read(PART):
        seen.update(part)
        target.write(part)
    return seen.hexdigest()
