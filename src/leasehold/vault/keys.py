"""
The keys that encrypt secrets: a file of them, one a line.

The first key encrypts, all decrypt, so a new key is put in front and the old ones stay until
``leasehold secrets rotate`` has encrypted everything anew. A ciphertext holds tenant, name and
version beside the value: a row that was copied over another one does not decrypt as it.
"""

import hashlib
import json
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leasehold.errors import BadInputError, SecretUnavailableError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_COMMENT: Final = "#"
SETTING: Final = "LEASEHOLD_SECRET_KEYS_FILE"


def key_id(key: bytes) -> str:
    """Return a key's name, which tells nothing of it."""
    return hashlib.sha256(b"leasehold key id" + key).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one file."""

    path: Path
    _keys: tuple[tuple[str, "Fernet"], ...]

    @classmethod
    def load(cls, path: Path) -> "Keys":
        """
        Read a file of keys.

        Raises:
            BadInputError: It cannot be read, others may write it, or a line is no key.
        """
        from cryptography.fernet import Fernet

        try:
            mode = path.stat().st_mode
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError as error:
            raise BadInputError(f"{SETTING}: {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadInputError(f"{SETTING}: {path} is no file of keys") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BadInputError(f"{SETTING}: others may write {path}; chmod 600 it")
        keys = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith(_COMMENT):
                continue
            try:
                keys.append((key_id(text.encode()), Fernet(text)))
            except ValueError:
                raise BadInputError(
                    f"{SETTING}: {path}: line {number} is no key: 32 bytes as URL-safe base64"
                    " (`leasehold secrets new-key` makes one)"
                ) from None
        if not keys:
            raise BadInputError(f"{SETTING}: {path} holds no key")
        return cls(path, tuple(keys))

    @property
    def first(self) -> str:
        """Return the id of the key that encrypts."""
        return self._keys[0][0]

    @property
    def ids(self) -> list[str]:
        return [name for name, _ in self._keys]

    def seal(self, value: str, *, tenant_id: str, name: str, version: int) -> str:
        """Encrypt a value for its row."""
        whole = {"tenant": tenant_id, "name": name, "version": version, "value": value}
        data = json.dumps(whole).encode()
        return self._keys[0][1].encrypt(data).decode()

    def open(self, ciphertext: str, *, tenant_id: str, name: str, version: int) -> str:
        """
        Decrypt a row's value; `version` 0 takes any.

        Raises:
            SecretUnavailableError: No key fits, or the row is not what it says.
        """
        from cryptography.fernet import InvalidToken

        for _, key in self._keys:
            try:
                whole = json.loads(key.decrypt(ciphertext))
            except InvalidToken:
                continue
            meant = (whole["tenant"], whole["name"]) == (tenant_id, name)
            if not meant or version not in {0, whole["version"]}:
                raise SecretUnavailableError(
                    f"the row of secret {name} holds another one's value; set it again",
                    retryable=False,
                )
            return str(whole["value"])
        raise SecretUnavailableError(
            f"no key in {self.path} decrypts secret {name}: give this host the key that"
            " encrypted it"
        )


def new_key() -> str:
    """Return a fresh key, as a line of a file of keys."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def make_file(path: Path) -> bool:
    """Make a file with one fresh key, readable by us alone; False: one is there, and stays."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, f"{new_key()}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        # link refuses to replace: of two that begin at once, one key is everybody's.
        os.link(fresh, path)
    except FileExistsError:
        return False
    finally:
        fresh.unlink()
    return True
