"""Trees for the tests: directories from words, and what lies in a fake sandbox."""

import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from leasehold.blobs import Blobs
from leasehold.trees.packing import Packed, pack
from leasehold.trees.reading import Limits

LIMITS = Limits(files=1000, bytes=10 * 1024 * 1024)


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files into a directory; a text that begins with ``->`` makes a link."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text)
    return root


def store(blobs: Blobs, root: Path, *, tenant_id: str = "default") -> Packed:
    """Pack a directory into the store, as the command line does."""
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        packed = pack(root, spool, LIMITS)
        blobs.put(tenant_id, spool, name=packed.digest, size=packed.bytes)
    return packed


def spec(packed: Packed) -> dict[str, object]:
    return {"digest": packed.digest, "bytes": packed.bytes, "files": packed.files}


def read(root: Path) -> dict[str, str]:
    """Return all files below a directory with what is in them; links as `write` takes them."""
    return {
        str(path.relative_to(root)): f"->{path.readlink()}"
        if path.is_symlink()
        else path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
