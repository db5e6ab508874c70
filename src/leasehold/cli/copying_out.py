"""`cp LEASE:PATH DEST`: out of a sandbox into the store, and from there to local files."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from leasehold.cli import copying, entering, interrupting, output
from leasehold.cli.copying import Done
from leasehold.cli.ports import Port
from leasehold.errors import BadInputError, ConflictError, HostileTreeError, NotFoundError
from leasehold.trees import homing

STREAM: Final = "-"
_HOPELESS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Troubles that the next file would have as well."""


def copy(lease: str, path: str, dest: str, *, as_json: bool) -> int:
    """Copy out, say what was copied, and return our exit code."""
    if dest == STREAM and as_json:
        raise BadInputError("--json: stdout carries the file")
    plain = copying.inside(path)
    target = None if dest == STREAM else _Target(dest)
    # What ends with a slash or a dot is a directory; the worker takes it for nothing else.
    wanted = f"{plain}/." if plain != "." and path.endswith(("/", "/.")) else plain
    way = entering.way()
    way.need_stack("cp")
    with interrupting.terminable(), way.footing() as footing, way.open() as port:
        done = copying.carry(port, footing, lease, {"copy_out": wanted})
        if isinstance(done, int):
            return done
        return _brought(port, done, path, plain, target, as_json=as_json)


def _brought(
    port: Port, done: Done, path: str, plain: str, target: "_Target | None", *, as_json: bool
) -> int:
    collected = done.events.get("artifacts.collected")
    if collected is None:
        return copying.failed(done)
    left_out = [(row["path"], row["reason"]) for row in done.lines if row["kind"] == "skipped"]
    if "copied" not in collected:
        raise NotFoundError(f"cp: {path!r}: {left_out[0][1] if left_out else 'not found'}")
    kept = [
        {**row, "mode": int(row["mode"], 8)} for row in done.lines if row["kind"] == "artifact"
    ]
    by_digest = {row["sha256"]: row for row in kept if row["sha256"] is not None}

    def fetch(digest: str, file: BinaryIO) -> None:
        port.runs.fetch(done.run["id"], by_digest[digest], file)

    if collected["copied"] == "file":
        bad = _file(kept, plain, target, fetch)
    else:
        # `DIR/.` is what is in it; a directory that was named comes with its name.
        name = None if plain == "." or path.endswith("/.") else plain.rpartition("/")[2]
        bad = _directory(kept, path, name, target, fetch)
    return _tell(done, kept, [*left_out, *bad], as_json=as_json)


def _tell(
    done: Done, kept: list[Any], left_out: list[tuple[str, str]], *, as_json: bool
) -> int:
    error = done.run["artifacts_error"]
    hidden = done.events["artifacts.collected"].get("skipped", 0) - len(
        [row for row in done.lines if row["kind"] == "skipped"]
    )
    if error is not None:
        left_out.append((".", error))
    if hidden > 0:
        left_out.append((".", f"{hidden} more that are not named"))
    code = copying.say_left_out(left_out)
    if as_json:
        failed = {path for path, _ in left_out}
        there = [row for row in kept if row["path"] not in failed]
        size = sum(row["bytes"] for row in there)
        output.emit(copying.report(done, files=len(there), size=size, left_out=left_out))
    return code


class _Target:
    """Where it goes on this machine; what is named itself may be a link, as with cp."""

    def __init__(self, text: str) -> None:
        """
        Look before anything is asked of a worker.

        Raises:
            BadInputError: It cannot be written there whatever comes.
        """
        if not text:
            raise BadInputError("cp: the destination has no name")
        self.text, self.path = text, Path(text)
        try:
            self.is_directory = self.path.is_dir()
            self.is_file = self.path.is_file()
            above = self.path.absolute().parent
            if not (self.is_directory or self.is_file):
                if self.path.exists() or self.path.is_symlink():
                    raise BadInputError(f"cp: {text!r} is neither file nor directory")
                if not above.is_dir():
                    raise BadInputError(f"cp: {text!r}: there is no directory {str(above)!r}")
        except (OSError, ValueError) as error:
            raise BadInputError(f"cp: {text!r}: {error}") from None


def _file(
    kept: list[Any],
    plain: str,
    target: _Target | None,
    fetch: Callable[[str, BinaryIO], object],
) -> list[tuple[str, str]]:
    if not kept:
        return []  # beyond a cap, which is said
    (line,) = kept
    if target is None:
        sys.stdout.flush()
        fetch(line["sha256"], sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return []
    if target.is_directory:
        root, name = target.path, plain.rpartition("/")[2]
    elif target.text.endswith("/"):
        raise BadInputError(f"cp: there is no directory {target.text!r}")
    else:
        # A link to a file is that file; a rename would replace the link.
        real = target.path.resolve()
        root, name = real.parent, real.name
    if (root / name).is_dir():
        raise ConflictError(f"cp: {str(root / name)!r} is a directory, {plain!r} is a file")
    if bad := _write(root, name, line, fetch):
        raise BadInputError(f"cp: {str(root / name)!r}: {bad[0][1]}")
    return []


def _directory(
    kept: list[Any],
    path: str,
    name: str | None,
    target: _Target | None,
    fetch: Callable[[str, BinaryIO], object],
) -> list[tuple[str, str]]:
    if target is None:
        raise ConflictError(f"cp: {path!r} is a directory; stdout takes a file")
    if target.is_file:
        raise ConflictError(f"cp: {path!r} is a directory, and {target.text!r} is a file")
    try:
        if not target.is_directory:
            target.path.mkdir()
            name = None
        elif name is not None and not (target.path / name).is_dir():
            (target.path / name).mkdir()
    except OSError as error:
        raise ConflictError(f"cp: {error.filename!r}: {error.strerror}") from None
    below = "" if name is None else f"{name}/"
    return [
        bad
        for line in kept
        for bad in _write(target.path, f"{below}{line['path']}", line, fetch)
    ]


def _write(
    root: Path, path: str, line: Any, fetch: Callable[[str, BinaryIO], object]
) -> list[tuple[str, str]]:
    """Write one file or link; return it with the reason if that cannot be."""
    try:
        homing.write_out(root, path, line, fetch)
    except HostileTreeError as error:
        return [(line["path"], str(error))]
    except OSError as error:
        if error.errno in _HOPELESS:
            raise BadInputError(f"cp: {str(root)!r}: {error.strerror}") from None
        return [(line["path"], error.strerror or str(error))]
    return []
