"""
The store of blobs: packed workspaces and artifacts, by the SHA-256 of what is in them.

A directory by default, or anything that fsspec reaches. A blob's name is its content, so
whoever writes it a second time writes the same, and nobody ever changes one. Authority is the
name: a blob is there if its name is, whole. In a directory it is written aside, flushed and
renamed; an object store shows an object only once it is complete. Killed in between: a rest
under `aside/` (in an object store an upload that nobody completes, which its own rules of
lifetime remove), and the next try writes anew. What is read is hashed, so that a blob that
rotted or was tampered with is never taken for the one that was meant.

Which objects there are stands in SQL (`store.blobs`), the row before the object, so that none
stays that nobody will delete. While one of a content is going, the next of the same content
gets a name with a suffix; a reader takes any.

Blobs of a tenant are under its own name: knowing a digest is no right to read it.
"""

import glob
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote
from uuid import uuid4

from leasehold.errors import BadInputError, BlobMissingError, BlobsUnavailableError
from leasehold.seams import effect

PART_BYTES: Final = 1024 * 1024
_SMALL_BYTES: Final = 5 * 1024 * 1024
"""What is smaller goes to an object store in one request."""

_EXTRAS: Final = {"s3": "s3", "s3a": "s3"}
"""Kinds of store that an extra of ours brings the driver of."""


class Blobs:
    """One store; any number of processes may use it at once."""

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def _reached(self) -> tuple[Any, str]:
        """
        Return the file system and the path in it.

        Raises:
            BadInputError: There is no such kind of store, or its driver is not installed.
        """
        import fsspec.core

        kind = self.address.partition("://")[0] if "://" in self.address else "file"
        try:
            system, path = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            extra = _EXTRAS.get(kind)
            mend = f"pip install 'leasehold[{extra}]'" if extra else str(error)
            raise BadInputError(
                f"LEASEHOLD_STORE_URL: {kind}:// needs a driver that is not installed: {mend}"
            ) from None
        except ValueError as error:
            raise BadInputError(f"LEASEHOLD_STORE_URL: {error}") from None
        return system, str(path)

    def check(self) -> None:
        """
        See whether the address can be used at all; nothing is read or written.

        Raises:
            BadInputError: There is no such kind of store, or its driver is not installed.
        """
        assert self._reached

    @property
    def _is_directory(self) -> bool:
        protocol = self._reached[0].protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def _path(self, tenant_id: str, name: str) -> str:
        # A tenant's id is no path: without its dots it leads nowhere.
        tenant = quote(tenant_id, safe="").replace(".", "%2E")
        return f"{self._reached[1]}/{tenant}/{name[:2]}/{name}"

    def _paths(self, tenant_id: str, digest: str) -> Iterator[str]:
        """Return where these bytes may be: under their name, or under that and a suffix."""
        path = self._path(tenant_id, digest)
        yield path
        with suppress(FileNotFoundError):  # a bucket that is not there
            yield from sorted(self._reached[0].glob(f"{glob.escape(path)}.*"))

    def size(self, tenant_id: str, digest: str) -> int | None:
        """
        Return how big a blob is; None: it is not there.

        Raises:
            BlobsUnavailableError: The store does not answer.
        """
        with self._patient():
            for path in self._paths(tenant_id, digest):
                if (size := self._size(path)) is not None:
                    return size
        return None

    def _size(self, path: str) -> int | None:
        try:
            # Listings are remembered by some drivers; others may have written meanwhile.
            self._reached[0].invalidate_cache()
            return int(self._reached[0].info(path)["size"])
        except FileNotFoundError:
            return None

    def put(self, tenant_id: str, source: BinaryIO, *, name: str, size: int) -> None:
        """
        Store what `source` holds from its beginning on, unless it is there already.

        Args:
            name: The object's, of a row that was written before (`orchestrator.storing`).

        Raises:
            BlobsUnavailableError: The store does not answer, or is full.
        """
        path = self._path(tenant_id, name)
        with self._patient():
            if self._size(path) == size:
                return
        source.seek(0)
        with self._patient(), effect("blob.put"):
            if self._is_directory:
                _write_aside(Path(self._reached[1]), Path(path), source)
                return
            _upload(self._reached[0], path, source)

    def remove(self, tenant_id: str, name: str) -> None:
        """
        Delete an object; one that is gone already is fine.

        Raises:
            BlobsUnavailableError: The store does not answer.
        """
        with self._patient(), effect("blob.remove"), suppress(FileNotFoundError):
            self._reached[0].rm_file(self._path(tenant_id, name))

    def clear_aside(self, *, older_than_s: float) -> int:
        """
        Delete what killed writers left beside the objects of a directory; return how much.

        How old it is, the directory's own clock says: that of a file written now.
        """
        aside = Path(self._reached[1]) / "aside"
        if not self._is_directory or not aside.is_dir():
            return 0
        with self._patient(), tempfile.NamedTemporaryFile(dir=aside) as fresh:
            now = Path(fresh.name).stat().st_mtime
            left = 0
            for path in aside.iterdir():
                with suppress(FileNotFoundError):
                    if now - path.stat().st_mtime > older_than_s:
                        path.unlink()
                        left += 1
            return left

    def fetch(self, tenant_id: str, digest: str, target: BinaryIO) -> int:
        """
        Write a blob into `target` and return its size; its content is proven.

        Raises:
            BlobMissingError: It is not there, or not what its name says.
            BlobsUnavailableError: The store does not answer.
        """
        return self._copy(tenant_id, digest, target.write)

    def _copy(self, tenant_id: str, digest: str, write: Callable[[bytes], object]) -> int:
        seen, size = hashlib.sha256(), 0
        for part in self._parts(tenant_id, digest):
            seen.update(part)
            size += len(part)
            write(part)
        if seen.hexdigest() != digest:
            raise BlobMissingError(f"blob {digest} of {self.address} is damaged")
        return size

    def _parts(self, tenant_id: str, digest: str) -> Iterator[bytes]:
        with self._patient(), self._opened(tenant_id, digest) as file:
            while part := file.read(PART_BYTES):
                yield part

    def _opened(self, tenant_id: str, digest: str) -> Any:
        for path in self._paths(tenant_id, digest):
            with suppress(FileNotFoundError):
                return self._reached[0].open(path, "rb")
        raise BlobMissingError(
            f"blob {digest} is not in the store {self.address}; every process needs"
            " the same store (LEASEHOLD_STORE_URL)"
        )

    @contextmanager
    def _patient(self) -> Iterator[None]:
        """Tell a store's trouble from ours: its drivers raise whatever they like."""
        try:
            yield
        except (BlobMissingError, BadInputError, GeneratorExit):
            raise
        except Exception as error:
            raise BlobsUnavailableError(
                f"the store {self.address} does not do it: {type(error).__name__}: {error}"
            ) from error


def _upload(system: Any, path: str, source: BinaryIO) -> None:
    """Give an object store the whole object; a part of it never gets the name."""
    first = source.read(_SMALL_BYTES)
    if len(first) < _SMALL_BYTES:
        system.pipe_file(path, first)
        return
    file = system.open(path, "wb", autocommit=False)
    try:
        with file:
            file.write(first)
            while part := source.read(PART_BYTES):
                file.write(part)
    except BaseException:
        # Left to itself, a driver completes what it has.
        with suppress(Exception):
            file.discard()
        raise
    file.commit()


def _write_aside(root: Path, path: Path, source: BinaryIO) -> None:
    aside = root / "aside" / uuid4().hex
    for folder in (aside.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with aside.open("xb") as file:
            while part := source.read(PART_BYTES):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _flush_name(path.parent)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def _flush_name(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
