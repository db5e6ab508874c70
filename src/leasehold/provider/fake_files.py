"""Files of a `fake` sandbox: a directory `work` in its box, which no path leaves."""

# A foreign path is text until it was looked at:
# ruff: noqa: PTH118, PTH120

import os
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, cast

from leasehold.errors import ConfigRejectedError
from leasehold.provider.archive import checked_tree, extract
from leasehold.seams import effect

_ROOT: Final = "/work"
_PART: Final = 1024 * 1024


def put(
    box: Path,
    path: str,
    source: BinaryIO,
    *,
    tree: bool,
    mode: int,
    still: Callable[[], None] = lambda: None,
) -> None:
    """
    Write a file, at once, or unpack a tar stream.

    Args:
        still: Asked before anything can be seen; a command of the sandbox asks nobody.
    """
    place = _inside(box, path)
    if tree:
        with (
            checked_tree(source) as parts,
            tarfile.open(fileobj=parts) as tar,
            effect("fake:unpack"),
        ):
            still()
            place.mkdir(parents=True, exist_ok=True)
            for member in tar:
                _inside(box, os.path.join(path, member.name))
                # Looked through before; modes and links are kept as they are.
                try:
                    extract(tar, member, str(place))
                except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                    text = f"{member.name!r} does not fit what is there: {error.strerror}"
                    raise ConfigRejectedError(text) from error
        return
    if place.is_dir():
        raise ConfigRejectedError(f"{path!r} is a directory")
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = box / f"put.{os.getpid()}.{os.urandom(6).hex()}"
    with effect("fake:put"):
        with fresh.open("xb") as file:
            while part := source.read(_PART):
                file.write(part)
        fresh.chmod(mode)
        try:
            still()
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)


def get(box: Path, path: str, *, tree: bool) -> Iterator[bytes]:
    """Read a file, or a tar stream of what is below `path`."""
    place = _inside(box, path)
    if not (place.is_dir() if tree else place.is_file()):
        raise ConfigRejectedError(f"no {'directory' if tree else 'file'} {path!r}")
    return _tar(place) if tree else _file(place)


def _file(place: Path) -> Iterator[bytes]:
    with place.open("rb") as file:
        while part := file.read(_PART):
            yield part


def _tar(place: Path) -> Iterator[bytes]:
    whole = BytesIO()
    with tarfile.open(fileobj=cast("BinaryIO", whole), mode="w") as tar:
        for entry in sorted(place.iterdir()):
            tar.add(entry, arcname=entry.name)
    yield whole.getvalue()


def _inside(box: Path, path: str) -> Path:
    """
    Return where a path of the sandbox is.

    Raises:
        ConfigRejectedError: It leads outside, by its words or through a link.
    """
    if not path or "\0" in path:
        raise ConfigRejectedError("a path has at least one letter, and no NUL")
    (box / "work").mkdir(exist_ok=True)
    root = os.path.realpath(box / "work")
    words = path.removeprefix(_ROOT).lstrip("/") if path.startswith(f"{_ROOT}/") else path
    whole = os.path.normpath(os.path.join(root, words))
    real = os.path.realpath(os.path.dirname(whole)) if whole != root else root
    links = os.path.realpath(whole)
    if ".." in path.split("/") or any(
        not f"{found}/".startswith(f"{root}/") for found in (whole, real, links)
    ):
        raise ConfigRejectedError(f"{path!r} leads out of the sandbox")
    return Path(whole)
