"""
What is kept of a sandbox's files: artifacts by their patterns, changes against the tree.

Reads a tar stream of the sandbox once, from its beginning on, and hands each file that is to
be kept to the store. Nothing that a hostile command wrote is trusted: names stay inside
(`reading`), sizes are counted against caps before and while they are read, and what is not
kept is named with the reason. If the stream itself is refused in the middle, what came before
is kept, and nothing is called deleted.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, cast

from pathspec import GitIgnoreSpec

from leasehold.errors import HostileTreeError
from leasehold.trees.comparing import LINK, Base, Entry, hashed
from leasehold.trees.reading import Content, Kind, Limits, Member, members, stays_inside

MAX_SKIPPED: Final = 100
"""Skipped files that are named; more are only counted."""

_WILD: Final = frozenset("*?[\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One line of what a run left."""

    kind: str
    """`artifact`, `changed`, `deleted` or `skipped`."""

    path: str
    mode: int = 0
    bytes: int = 0
    sha256: str | None = None
    link: str | None = None
    base: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for, and how much of it."""

    globs: tuple[str, ...] = ()
    whole: bool = False
    """All that is there is asked for, links that stay inside too."""

    base: Base | None = None
    """The tree that changes are told against; None: nobody asks for them."""

    kept: Limits
    """Of all that is kept."""

    file_bytes: int
    """Of one file that is kept."""

    stream: Limits
    """Of all that is looked at."""


Keep = Callable[[BinaryIO, str, int], None]
"""Stores a file: its content, SHA-256 and size."""


@dataclass(slots=True)
class Gathered:
    """What was found so far."""

    lines: dict[tuple[str, str], Found] = field(default_factory=dict)
    error: str | None = None
    """Why the rest was not looked at."""

    bytes: int = 0
    skipped: int = 0

    def add(self, line: Found) -> None:
        self.lines[line.kind, line.path] = line

    def skip(self, path: str, reason: str) -> None:
        """Note that a file is not kept, and why."""
        self.skipped += 1
        if self.skipped <= MAX_SKIPPED:
            self.add(Found(kind="skipped", path=path, reason=reason))


def folders(globs: Sequence[str]) -> list[str]:
    """Return the directories in which all matches lie, none of them below another."""
    found: list[str] = []
    for glob in globs:
        parts = glob.strip("/").split("/")[:-1]
        wild = next((i for i, part in enumerate(parts) if _WILD & set(part)), len(parts))
        found.append("/".join(part for part in parts[:wild] if part not in {"", "."}))
    return [
        one
        for one in sorted(set(found))
        if not any(one != other and f"{one}/".startswith(f"{other}/") for other in found)
        and not ("" in found and one)
    ]


class Gatherer:
    """Looks through the streams of one sandbox."""

    def __init__(self, plan: Plan, keep: Keep) -> None:
        self._plan, self._keep = plan, keep
        self._specs = [GitIgnoreSpec.from_lines([f"/{glob}"]) for glob in plan.globs]
        self._matched: set[int] = set()
        self._known: dict[str, tuple[Entry, int]] = {}
        """Files that were read, for hard links to them."""

        self._seen: set[str] = set()
        self.result = Gathered()

    def read(self, source: BinaryIO, *, below: str = "") -> None:
        """Take in one stream; what it holds lies below a directory."""
        try:
            for member, content in members(source, self._plan.stream):
                if below:
                    # A hard link names an earlier member, which lies below it as well.
                    target = f"{below}/{member.target}"
                    shown = target if member.kind is Kind.SAME else member.target
                    named = replace(member, path=f"{below}/{member.path}", target=shown)
                    self._look(named.path, named, content)
                else:
                    self._look(member.path, member, content)
        except HostileTreeError as error:
            self.result.error = f"refused: {error}"

    def take(self, path: str, parts: Iterator[bytes]) -> None:
        """Take in one file that comes by itself; nobody has said how big it is."""
        most, size, seen = self._plan.file_bytes, 0, hashlib.sha256()
        with tempfile.TemporaryFile() as file:
            for part in parts:
                size += len(part)
                if size > most:
                    self.result.skip(path, f"more than {most} bytes")
                    return
                seen.update(part)
                file.write(part)
            if not self._fits(path, size):
                return
            self._keep(cast("BinaryIO", file), seen.hexdigest(), size)
        self.result.bytes += size
        entry = Entry(seen.hexdigest())
        self._note(path, entry, size, is_artifact=True, compared=False)

    def finish(self) -> Gathered:
        """Say what is missing, after the last stream."""
        for index, glob in enumerate(self._plan.globs):
            if index not in self._matched:
                self.result.skip(glob, "matches nothing")
        base = self._plan.base
        if base is not None and self.result.error is None:
            for path, entry in base.entries.items():
                if path not in self._seen:
                    self.result.add(Found(kind="deleted", path=path, base=entry.content))
        return self.result

    def _look(self, path: str, member: Member, content: Content | None) -> None:
        if member.kind is Kind.DIRECTORY:
            return
        globs = {index for index, spec in enumerate(self._specs) if spec.match_file(path)}
        self._matched |= globs
        compared = self._is_compared(path)
        if compared:
            self._seen.add(path)
        is_artifact = bool(globs) or self._plan.whole
        if not is_artifact and not compared:
            return
        if not _is_utf8(path):
            shown = path.encode(errors="surrogateescape").decode(errors="replace")
            self.result.skip(shown, "its name is not UTF-8")
            return
        if member.kind is Kind.LINK:
            self._link(path, member, is_artifact=is_artifact, compared=compared)
        elif member.kind is Kind.OTHER:
            self.result.skip(path, "neither file, directory nor link")
        else:
            self._file(path, member, content, is_artifact=is_artifact, compared=compared)

    def _is_compared(self, path: str) -> bool:
        base = self._plan.base
        return base is not None and (path in base.entries or not base.ignored.covers(path))

    def _link(self, path: str, member: Member, *, is_artifact: bool, compared: bool) -> None:
        if is_artifact and self._plan.whole:
            self._whole_link(path, member.target)
        elif is_artifact:
            self.result.skip(path, "a link")
        if not compared or self._before(path) == LINK + member.target:
            return
        if not stays_inside(path, member.target) or not member.target.isprintable():
            self.result.skip(path, "a link that leads outside")
            return
        self.result.add(
            Found(
                kind="changed",
                path=path,
                mode=0o777,
                link=member.target,
                base=self._before(path),
            )
        )

    def _whole_link(self, path: str, target: str) -> None:
        if not stays_inside(path, target) or not _is_utf8(target):
            self.result.skip(path, "a link that leads outside")
        elif self._fits(path, 0):
            self.result.add(Found(kind="artifact", path=path, mode=0o777, link=target))

    def _before(self, path: str) -> str | None:
        entry = self._entry(path)
        return entry.content if entry else None

    def _entry(self, path: str) -> Entry | None:
        base = self._plan.base
        return base.entries.get(path) if base is not None else None

    def _file(
        self,
        path: str,
        member: Member,
        content: Content | None,
        *,
        is_artifact: bool,
        compared: bool,
    ) -> None:
        if member.bytes > self._plan.file_bytes:
            self.result.skip(path, f"{member.bytes} bytes; at most {self._plan.file_bytes}")
            return
        if content is None:
            known = self._known.get(member.target)
            if known is None:
                self.result.skip(path, f"a hard link to {member.target!r}, which is not kept")
                return
            entry, size = known
            entry = Entry(entry.content, executable=bool(member.mode & 0o100))
            self._note(path, entry, size, is_artifact=is_artifact, compared=compared)
            return
        with tempfile.TemporaryFile() as file:
            spool = cast("BinaryIO", file)
            digest = hashed(content, spool)
            entry = Entry(digest, executable=bool(member.mode & 0o100))
            changed = compared and entry != self._entry(path)
            if (is_artifact or changed) and not self._fits(path, member.bytes):
                return
            if is_artifact or changed:
                self._keep(spool, digest, member.bytes)
                self.result.bytes += member.bytes
        self._known[path] = (entry, member.bytes)
        self._note(path, entry, member.bytes, is_artifact=is_artifact, compared=compared)

    def _fits(self, path: str, size: int) -> bool:
        kept = self._plan.kept
        if len(self.result.lines) >= kept.files:
            raise HostileTreeError(f"more than {kept.files} files to keep")
        if self.result.bytes + size <= kept.bytes:
            return True
        self.result.skip(path, f"more than {kept.bytes} bytes in all")
        return False

    def _note(
        self, path: str, entry: Entry, size: int, *, is_artifact: bool, compared: bool
    ) -> None:
        mode = 0o755 if entry.executable else 0o644
        if is_artifact:
            self.result.add(
                Found(kind="artifact", path=path, mode=mode, bytes=size, sha256=entry.content)
            )
        if compared and entry != self._entry(path):
            self.result.add(
                Found(
                    kind="changed",
                    path=path,
                    mode=mode,
                    bytes=size,
                    sha256=entry.content,
                    base=self._before(path),
                )
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Stream:
    """An iterator of bytes as a file that is read once, from its beginning."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        found = [self._rest]
        have = len(self._rest)
        while size < 0 or have < size:
            part = next(self._parts, None)
            if part is None:
                break
            found.append(part)
            have += len(part)
        whole = b"".join(found)
        cut = len(whole) if size < 0 else size
        self._rest = whole[cut:]
        return whole[:cut]
