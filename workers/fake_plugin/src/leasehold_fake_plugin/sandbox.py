"""
A sandbox is a directory; its name follows from the lease id, its label lies in it.

    <root>/sb-<name>/
        label.json      whose it is: deployment, lease id and number, when it was made
        work/           where commands start; all that they are meant to see
        tmp/            their TMPDIR
        control/        the supervisor's (see `leasehold.provider.supervisor`)

It is made whole under a name of its own (``.new-``) and renamed, so a listed sandbox always
has its label and its first fence; of two makers one wins. It is removed the other way round:
renamed (``.dead-``), then deleted. What a death leaves under such names belongs to nobody and
is cleared away by the next call for the same lease.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from leasehold.provider import LeaseRef, UnavailableError, boot_time, effect

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def name_of(lease_id: str) -> str:
    """Return the sandbox's name: the lease id, or its hash if it is no plain file name."""
    if _PLAIN.match(lease_id):
        return lease_id
    return "h-" + hashlib.sha256(lease_id.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Directory:
    """One sandbox's directory, which may or may not exist."""

    root: Path
    lease_id: str
    deployment: str

    @property
    def name(self) -> str:
        return name_of(self.lease_id)

    @property
    def path(self) -> Path:
        return self.root / f"sb-{self.name}"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def work(self) -> Path:
        return self.path / "work"

    def label(self) -> dict[str, Any] | None:
        """Read the label; None if there is no such sandbox, or it is not ours."""
        label = read_label(self.path)
        ours = (self.lease_id, self.deployment)
        return label if label and (label["lease_id"], label["deployment"]) == ours else None

    def is_anothers(self) -> bool:
        """Tell whether this name is taken by another lease or deployment."""
        return self.label() is None and read_label(self.path) is not None

    def create(self, lease: LeaseRef, *, fence: int, ttl: timedelta) -> bool:
        """Make it, whole; False if somebody else was first."""
        new = self.root / f".new-{self.name}-{os.getpid()}-{uuid4().hex}"
        label = {
            "v": 1,
            "incarnation": uuid4().hex,
            "deployment": lease.deployment,
            "lease_id": lease.id,
            "lease_number": lease.number,
            "boot_id": boot_id(),
            "made_at_boot_s": boot_time(),
        }
        with effect("provider-file:sandbox-new"):
            new.mkdir(mode=0o700)
            for part in ("work", "tmp", "control/fence", "control/x"):
                (new / part).mkdir(parents=True, mode=0o700)
            (new / "label.json").write_text(json.dumps(label))
            (new / "control" / "fence" / f"{fence:020d}").touch(mode=0o600)
            (new / "control" / "deadline").write_text(_deadline(ttl))
        try:
            with effect("provider-file:sandbox-name"):
                new.rename(self.path)
        except OSError as error:
            _remove(new)
            if self.path.exists():
                return False
            raise UnavailableError(f"cannot make {self.path}: {error.strerror}") from error
        return True

    def set_deadline(self, ttl: timedelta) -> None:
        """Let the sandbox end `ttl` from now; `FileNotFoundError` if it is gone."""
        new = self.control / f"deadline.{uuid4().hex}"
        with effect("provider-file:deadline"):
            new.write_text(_deadline(ttl))
            new.replace(self.control / "deadline")

    def expires_in_s(self) -> float:
        """Return the seconds that are left; zero if it has ended, or the host was rebooted."""
        boot, at, _ = (self.control / "deadline").read_text().split()
        return max(0.0, int(at) / 100 - boot_time()) if boot == boot_id() else 0.0

    def is_awaited(self) -> bool:
        """
        Tell whether a command runs here whose end nobody has decided.

        After the time to live such a sandbox has not ended: its supervisor was stopped with
        the whole machine, and waits for one renewal when it wakes. After a reboot none does.
        """
        boot = (self.control / "deadline").read_text().split()[0]
        return boot == boot_id() and any(map(_is_undecided, (self.control / "x").iterdir()))

    def highest_fence(self) -> int | None:
        return max((int(f.name) for f in (self.control / "fence").iterdir()), default=None)

    def remove(self) -> None:
        """Remove it, and what a death left of earlier tries; nothing of it may run any more."""
        with suppress(FileNotFoundError), effect("provider-file:sandbox-unname"):
            self.path.rename(self.root / f".dead-{self.name}-{uuid4().hex}")
        with effect("provider-file:sandbox-delete"):
            self.clear(everything=True)

    def clear(self, *, everything: bool = False) -> None:
        """Delete unfinished and removed directories; those of living makers only if told."""
        for path in self.root.glob(f".dead-{self.name}-*"):
            _remove(path)
        for path in self.root.glob(f".new-{self.name}-*"):
            maker = path.name.removeprefix(f".new-{self.name}-").split("-")[0]
            if everything or not Path("/proc", maker).exists():
                _remove(path)


def _is_undecided(place: Path) -> bool:
    try:
        begun = str((place / "go").readlink()) == "by-supervisor"
    except FileNotFoundError:
        return False
    return begun and not (place / "end").is_symlink() and not (place / "exit").exists()


def read_label(path: Path) -> dict[str, Any] | None:
    try:
        label: dict[str, Any] = json.loads((path / "label.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return label


def sandboxes(root: Path) -> Iterator[tuple[Directory, dict[str, Any]]]:
    """Yield every sandbox below `root` with its label."""
    for path in sorted(root.glob("sb-*")):
        if (label := read_label(path)) and path.name == f"sb-{name_of(label['lease_id'])}":
            yield Directory(root, label["lease_id"], label["deployment"]), label


def age_s(label: dict[str, Any]) -> float:
    """Return the seconds since it was made; after a reboot, at least those since the boot."""
    made = label["made_at_boot_s"] if label["boot_id"] == boot_id() else 0.0
    return max(0.0, boot_time() - float(made))


def _deadline(ttl: timedelta) -> str:
    at = round((boot_time() + ttl.total_seconds()) * 100)
    return f"{boot_id()} {at} {round(ttl.total_seconds() * 100 / 3)}\n"


def _remove(path: Path) -> None:
    def unlock(function: Callable[..., Any], name: str, _error: object) -> None:
        # A command may have taken the rights off its own directories.
        for locked in (Path(name).parent, Path(name)):
            if not locked.is_symlink() and locked.is_dir():
                locked.chmod(stat.S_IRWXU)
        with suppress(FileNotFoundError):
            if function is os.unlink or not Path(name).is_dir():
                Path(name).unlink()
            else:
                shutil.rmtree(name)

    with suppress(FileNotFoundError):
        shutil.rmtree(path, onerror=unlock)
