"""`cp SRC... LEASE:PATH`: local files are put into the store, and from there into a sandbox."""

import hashlib
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from leasehold.cli import copying, entering, interrupting, output
from leasehold.cli.ports import Port
from leasehold.errors import BadInputError
from leasehold.settings import Settings
from leasehold.trees.packing import Packed, pack_these
from leasehold.trees.reading import Limits

STREAM: Final = "-"
_PART: Final = 1024 * 1024


@dataclass(slots=True)
class _Packed:
    """Sources that lie in the store."""

    spec: dict[str, Any]
    files: int
    bytes: int
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Source:
    """A local file or directory as it was named; a link that was named is followed."""

    text: str
    path: Path
    mode: int

    @property
    def name(self) -> str | None:
        """What it is called where it comes to; None: what is in it goes there itself."""
        last = self.text.rstrip("/").rpartition("/")[2]
        return None if last in {"", ".", ".."} else last


def copy(sources: Sequence[str], lease: str, path: str, *, as_json: bool) -> int:
    """Copy in, say what was copied, and return our exit code."""
    to = {"to": copying.inside(path), "to_directory": len(sources) > 1}
    if path.endswith(("/", "/.")):
        # As with cp: a file does not become `new/`, a directory may.
        to["to_directory"] = to["to_directory"] or not _is_directory(sources[0])
    way = entering.way()
    way.need_stack("cp")
    with interrupting.terminable(), way.footing() as footing, way.open() as port:
        port.resolve("lease", lease)  # before a gigabyte is packed for nobody
        packed = _pack(port, way.settings, sources)
        done = copying.carry(port, footing, lease, {"copy_in": {**packed.spec, **to}})
    if isinstance(done, int):
        return done
    if "files.copied" not in done.events:
        return copying.failed(done)
    code = copying.say_left_out(packed.left_out)
    if as_json:
        left = packed.left_out
        output.emit(copying.report(done, files=packed.files, size=packed.bytes, left_out=left))
    return code


def _is_directory(text: str) -> bool:
    return text != STREAM and Path(text).is_dir()


def _pack(port: Port, found: Settings, sources: Sequence[str]) -> _Packed:
    """
    Put what was named into the store.

    Raises:
        BadInputError: There is no such file, it cannot be read, or it is beyond a limit.
    """
    limits = Limits(files=found.max_workspace_files, bytes=found.max_workspace_bytes)
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        if STREAM in sources:
            if len(sources) > 1:
                raise BadInputError("cp: stdin (-) is copied alone")
            return _file(port, sys.stdin.buffer, spool, limits, what="stdin")
        named = [_source(text) for text in sources]
        if len(named) == 1 and stat.S_ISREG(named[0].mode):
            (one,) = named
            try:
                with one.path.open("rb") as opened:
                    packed = _file(port, opened, spool, limits, what=one.text)
            except OSError as error:
                raise BadInputError(f"cp: {one.text!r}: {error.strerror}") from None
            packed.spec |= {"name": one.name, "executable": bool(one.mode & stat.S_IXUSR)}
            return packed
        return _tree(port, found, named, spool, limits)


def _source(text: str) -> _Source:
    if not text:
        raise BadInputError("cp: a source has no name")
    try:
        path = Path(text).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInputError(f"cp: {text!r}: {why}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadInputError(f"cp: {text!r} is neither file nor directory; `-` reads a stream")
    if text.endswith(("/", "/.")) and not stat.S_ISDIR(mode):
        raise BadInputError(f"cp: {text!r} is no directory")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"cp: {text!r}: its name is not UTF-8") from None
    return _Source(text, path, mode)


def _file(
    port: Port, source: BinaryIO, spool: BinaryIO, limits: Limits, *, what: str
) -> _Packed:
    # Copied aside first: a file that grows meanwhile would not be what its digest says.
    seen, size = hashlib.sha256(), 0
    while part := source.read(_PART):
        size += len(part)
        if size > limits.bytes:
            raise BadInputError(f"cp: {what}: more than {limits.bytes} bytes")
        seen.update(part)
        spool.write(part)
    digest = seen.hexdigest()
    port.keep(spool, digest=digest, size=size)
    return _Packed({"digest": digest, "bytes": size, "is_file": True}, 1, size)


def _tree(
    port: Port, found: Settings, named: list[_Source], spool: BinaryIO, limits: Limits
) -> _Packed:
    if len(named) == 1:
        # Its own name is given to the worker, who sees whether it is needed.
        packed, name = _packed(found, {"": named[0].path}, spool, limits), named[0].name
    else:
        by_name: dict[str, Path] = {}
        for one in named:
            if one.name is None:
                raise BadInputError(f"cp: {one.text!r} is copied alone")
            if one.name in by_name:
                raise BadInputError(f"cp: two sources are called {one.name!r}")
            by_name[one.name] = one.path
        packed, name = _packed(found, by_name, spool, limits), None
    port.keep(spool, digest=packed.digest, size=packed.bytes)
    spec = {"digest": packed.digest, "bytes": packed.bytes, "name": name}
    return _Packed(spec, packed.plain, packed.content_bytes, packed.left_out)


def _packed(
    found: Settings, sources: dict[str, Path], spool: BinaryIO, limits: Limits
) -> Packed:
    try:
        return pack_these(sources, spool, limits, home=found.home)
    except BadInputError as error:
        raise BadInputError(f"cp: {error}") from None
