"""
Where a name is looked up: each source says the value and its version, or that it has none.

The versions of what is not ours to count (a variable, a file) are digests of the value, slow
ones, so that they tell of a change and nothing of the value; they are made once per value.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from leasehold.domain.secrets import MAX_BYTES
from leasehold.errors import BadInputError, SecretUnavailableError
from leasehold.store import secrets
from leasehold.store.database import Database
from leasehold.vault.keys import SETTING, Keys

DEFAULT_TENANT: Final = "default"
_BETWEEN: Final = "__"


class Found(NamedTuple):
    value: str
    version: int


class Source(Protocol):
    """A place that may know a name."""

    def find(self, tenant_id: str, name: str, version: int) -> Found | None:
        """
        Return the value of this version (0: of the current one), or None if it has no such.

        Raises:
            SecretUnavailableError: It knows the name and cannot give the value.
            StoreUnavailableError: The database did not answer.
        """


class DatabaseSource:
    """Encrypted rows; the default."""

    def __init__(self, database: Database, keys: Callable[[], Keys | None]) -> None:
        self._database, self._keys = database, keys

    def find(self, tenant_id: str, name: str, version: int) -> Found | None:
        with self._database.read() as tx:
            pinned = version
            if not version:
                there = secrets.current(tx, tenant_id=tenant_id, names=[name])
                if name not in there:
                    return None
                pinned = there[name]
            text = secrets.find(tx, tenant_id=tenant_id, name=name, version=pinned)
        if text is None:
            return None
        try:
            keys = self._keys()
        except BadInputError as error:
            # This host's file is wrong; another host may have a good one.
            raise SecretUnavailableError(f"secret {name}: {error}") from None
        if keys is None:
            raise SecretUnavailableError(
                f"secret {name} is encrypted and this process has no keys: set {SETTING}"
            )
        value = keys.open(text, tenant_id=tenant_id, name=name, version=pinned)
        return Found(value, pinned)


@lru_cache(maxsize=1024)
def digest(value: str, salt: str) -> int:
    """Return a version for a value: another one for another value, and no help in guessing."""
    made = hashlib.scrypt(
        value.encode(errors="surrogateescape"), salt=salt.encode(), n=2**14, r=8, p=1, dklen=8
    )
    return int.from_bytes(made) >> 2 | 1


class EnvironmentSource:
    """Variables of the worker's process whose names begin with a prefix of their own."""

    def __init__(
        self, prefix: str, *, salt: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self._prefix, self._salt = prefix, salt
        self._variables = os.environ if variables is None else variables

    def find(self, tenant_id: str, name: str, version: int) -> Found | None:
        del version  # there is only the one that the process was started with
        if _BETWEEN in name:
            return None  # would be another tenant's
        tenant = "" if tenant_id == DEFAULT_TENANT else f"{tenant_id}{_BETWEEN}"
        value = self._variables.get(f"{self._prefix}{tenant}{name}")
        return None if value is None else Found(value, digest(value, self._salt))


class FilesSource:
    """Files ``<directory>/<tenant>/<name>``, as container platforms mount them."""

    def __init__(self, directory: Path, *, salt: str) -> None:
        self._directory, self._salt = directory, salt

    def find(self, tenant_id: str, name: str, version: int) -> Found | None:
        del version
        # A name has no slash and does not begin with a dot (`domain.secrets.NAME_PATTERN`).
        path = self._directory / tenant_id / name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise SecretUnavailableError(f"secret {name}: {path}: {error.strerror}") from None
        if len(data) > MAX_BYTES:
            raise SecretUnavailableError(f"secret {name}: {path} has over {MAX_BYTES} bytes")
        try:
            value = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise SecretUnavailableError(f"secret {name}: {path} is not UTF-8") from None
        return Found(value, digest(value, self._salt))
