"""
What a host remembers of its deployment outside of the database: a file beside its sandboxes.

A SQLite file that was put back, or a cluster that was rewound, cannot know that it is of
yesterday; a host that has served it longer can. The file holds the highest lease number and
the epoch that this host has seen, and is read when a session starts, before anything is done.
It is written after a beat, so a host that dies within a beat forgets the numbers of those two
seconds; their sandboxes are then seen by the first sweep.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from leasehold.log import get_logger
from leasehold.store.restored import Seen

log = get_logger(__name__)


class Ledger:
    """One host's memory of the one deployment that it served last."""

    def __init__(self, path: Path, *, deployment: str, epoch: int) -> None:
        self._path = path
        self._deployment, self._epoch = deployment, epoch
        self._number = -1

    def read(self) -> Seen | None:
        """Return what was remembered; None if there is nothing readable."""
        try:
            value = json.loads(self._path.read_text())
            return Seen(
                deployment=str(value["deployment"]),
                epoch=int(value["epoch"]),
                number=int(value["number"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("ledger.unreadable", path=str(self._path), why=str(error))
            return None

    def note(self, number: int) -> None:
        """Remember the highest lease number; written only when it grew."""
        if number <= self._number:
            return
        seen = self.read()
        if seen is not None and (seen.deployment, seen.epoch) == (
            self._deployment,
            self._epoch,
        ):
            number = max(number, seen.number)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        value = {"deployment": self._deployment, "epoch": self._epoch, "number": number}
        try:
            fresh.write_text(json.dumps(value))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("ledger.unwritten", path=str(self._path), why=str(error))
            with suppress(OSError):
                fresh.unlink()
            return
        self._number = number
