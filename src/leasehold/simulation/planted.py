"""
Secrets that are planted, and the search for them wherever a value must not be (P7).

Environments and runs name secrets; their values are drawn here, no two alike, new ones again
and again. The worlds and the wires give everything here that somebody could read: messages,
lines of history and of the log, what a provider is told beside a config and a command's
variables. When all is quiet every row of every table is looked through.

What is looked for is worked out here and not by `domain.redaction`: a form that is forgotten
there would be forgotten by the search, too.
"""

import base64
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import quote, quote_plus

from cryptography.fernet import Fernet

from leasehold import log
from leasehold.domain.redaction import Redactor
from leasehold.store.database import Database
from leasehold.vault import Keys, Vault
from leasehold.vault.sources import DatabaseSource

ACCOUNT: Final = "account"
"""Named by the config of an environment."""

LOGIN: Final = "login"
"""Named by the variables of an environment."""

OWN: Final = "own"
"""Named by the variables of a run."""

NAMES: Final = (ACCOUNT, LOGIN, OWN)

_WORD: Final = re.compile(rb"[0-9a-zA-Z]+")


class Planted:
    """The values of one seed, and who has said one of them."""

    def __init__(self, seed: int) -> None:
        # Chance of its own: what is drawn here moves nothing else.
        self._rng = Random(f"planted {seed}")  # noqa: S311  a simulation
        key = base64.urlsafe_b64encode(self._rng.randbytes(32))
        self.keys = Keys(Path("in-memory"), (("simulated", Fernet(key)),))
        self.values: list[str] = []
        self.leaks: list[str] = []
        self._marks: list[bytes] = []
        self._words: list[bytes] = []
        """Where none of these is, no mark is: they are fewer than half as many."""

        self._told: set[str] = set()
        self._hider: Redactor | None = None
        """What hides all values of now; made when it is asked for."""

    def draw(self, name: str) -> str:
        """Return a new value; from now on nobody may say it."""
        first, second = (self._rng.randbytes(12).hex() for _ in range(2))
        value = self._rng.choice(
            (f"{name}:{first}/+?{second}", f'{name} "{first}" & {second}', f"{first}\n{second}")
        )
        self.values.append(value)
        marks = sorted(_marks(value))
        self._marks += marks
        self._words += _words(marks)
        self._hider = None
        return value

    def vault(self, database: Database) -> Vault:
        """Return what one process resolves secrets with."""
        return Vault({"database": DatabaseSource(database, lambda: self.keys)}, told=self._hear)

    def _hear(self, values: Sequence[str]) -> None:
        # All simulated processes share one log.
        if not self._told.issuperset(values):
            self._told.update(values)
            log.hide(sorted(self._told))

    def as_stored(self, output: bytes) -> bytes:
        """Return a command's output as it is to be kept."""
        if self._hider is None:
            self._hider = Redactor.of(self.values)
        return self._hider.hide(output)

    def look(self, where: str, *texts: object) -> None:
        """Look for values in what somebody could read."""
        for text in texts:
            data = text if isinstance(text, bytes) else str(text).encode(errors="replace")
            if not self._may_be_in(data):
                continue
            found = next((mark for mark in self._marks if mark in data), None)
            if found is not None and len(self.leaks) < 20:  # noqa: PLR2004  enough to see
                at = data.index(found)
                shown = data[max(0, at - 60) : at + len(found) + 20]
                self.leaks.append(f"a secret's value is in {where}: {shown!r}")

    def _may_be_in(self, data: bytes) -> bool:
        # A loop and no generator: this is asked of everything that anybody says.
        for word in self._words:  # noqa: SIM110
            if word in data:
                return True
        return False

    def look_through(self, raw: sqlite3.Connection) -> None:
        """Look for values in every row of every table."""
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        for (table,) in raw.execute(tables).fetchall():
            cursor = raw.execute(f'SELECT * FROM "{table}"')  # noqa: S608  a name of the schema's
            columns = [one[0] for one in cursor.description]
            rows = cursor.fetchall()
            texts = [cell for row in rows for cell in row if isinstance(cell, str)]
            blobs = [cell for row in rows for cell in row if isinstance(cell, bytes)]
            # No mark has a NUL in it: what is in a cell is in them all, and the other way round.
            whole = b"\0".join(["\0".join(texts).encode(errors="replace"), *blobs])
            if not self._may_be_in(whole):
                continue
            for row in rows:
                for column, cell in zip(columns, row, strict=True):
                    if isinstance(cell, str | bytes):
                        self.look(f"{table}.{column}", cell)


def _words(marks: Iterable[bytes]) -> list[bytes]:
    """Return few texts, one of which is in whatever has one of the marks in it."""
    words: list[bytes] = []
    longest = (max(_WORD.findall(mark), key=len) for mark in marks)
    for word in sorted(longest, key=len):
        if not any(shorter in word for shorter in words):
            words.append(word)
    return words


def _marks(value: str) -> Iterator[bytes]:
    """Yield what every telling of a value has in it."""
    raw = value.encode()
    yield from raw.split(b"\n")
    yield from (quote(value, safe="").encode(), quote(value).encode())
    yield quote_plus(value).encode()
    yield json.dumps(value)[1:-1].encode()
    yield raw.hex().encode()
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw)
        # Neither the first nor the last characters are of the value alone.
        middle = encoded[4 * lead // 3 + 2 : -6]
        yield middle
        yield middle.replace(b"+", b"-").replace(b"/", b"_")


__all__ = ["ACCOUNT", "LOGIN", "NAMES", "OWN", "Planted"]
