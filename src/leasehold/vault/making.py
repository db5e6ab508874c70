"""Making a process's vault from its settings."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from leasehold.errors import BadInputError
from leasehold.settings import Settings
from leasehold.store.database import Database
from leasehold.vault.keys import Keys
from leasehold.vault.sources import DatabaseSource, EnvironmentSource, FilesSource, Source
from leasehold.vault.vault import Vault


class KeysFile:
    """The keys of a file, read when they are first needed, and again when the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int], Keys] | None = None

    def __call__(self) -> Keys | None:
        """
        Return the keys, or None if there is no such file.

        Raises:
            BadInputError: It is no file of keys.
        """
        try:
            seen = self.path.stat()
        except OSError:
            return None
        mark = seen.st_mtime_ns, seen.st_ino
        with self._lock:
            if self._read is None or self._read[0] != mark:
                self._read = mark, Keys.load(self.path)
            return self._read[1]


def make(
    settings: Settings,
    database: Database,
    *,
    deployment: str,
    told: Callable[[Sequence[str]], None] = lambda _: None,
) -> Vault:
    """
    Return the vault of a process.

    Raises:
        BadInputError: A source is asked for whose own setting is missing.
    """
    sources: dict[str, Source] = {}
    for name in settings.secret_sources.split(","):
        match name:
            case "environment":
                if settings.secret_env_prefix is None:
                    raise _missing(name, "LEASEHOLD_SECRET_ENV_PREFIX")
                sources[name] = EnvironmentSource(settings.secret_env_prefix, salt=deployment)
            case "files":
                if settings.secret_files_dir is None:
                    raise _missing(name, "LEASEHOLD_SECRET_FILES_DIR")
                sources[name] = FilesSource(settings.secret_files_dir, salt=deployment)
            case _:
                keys = KeysFile(settings.secret_keys_path)
                sources[name] = DatabaseSource(database, keys)
    return Vault(sources, told=told)


def _missing(source: str, setting: str) -> BadInputError:
    return BadInputError(
        f"LEASEHOLD_SECRET_SOURCES names {source}, which needs {setting}", field=setting
    )
