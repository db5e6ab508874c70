"""
What of a sandbox stands on the host's disk, and what it proves.

    <root>/sb-<name>/       mode 0711; its parent is 0700 and the worker's
        label.json          whose it is; written before the name is, never changed
        ctl/                the supervisor's control directory, never in the container
            fence/ x/       see `leasehold.provider.supervisor`
            deadline        a symbolic link to io/deadline
            running         the container as it was made ready last: id, control groups
            gatekeeper      who is the way out of an allow-list (see `egress`)
        io/                 /run/leasehold in the container, read-only there
            deadline        the sandbox's own end, also for the container's process 1
            t/<try>/        the pipes of one start (see `starting`)
        disk/               /sandbox in the container: work/ and home/, the command's own

The name follows from deployment and lease, the mark (`incarnation`) is drawn before anything is
made, and the container carries both: so each of the two, directory and container, says whose it
is without the other. The directory comes first and goes last. A death between leaves a
directory without a container, which is listed, adopted by the next `acquire` and removed by the
next `release`; a root that was wiped leaves containers, which are listed and removed by their
labels.

It is made whole under a name of its own (``.new-``) and renamed, so of two makers one wins. It
is removed the other way round (``.dead-``). What a death leaves under such names is nobody's
and is cleared away by the next call for the same lease.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

from leasehold.provider import (
    LeaseRef,
    SandboxGoneError,
    StaleFenceError,
    UnavailableError,
    boot_time,
    effect,
)

_PREFIX: Final = "sb-"


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def name_of(deployment: str, lease_id: str) -> str:
    """Return the name of a lease's sandbox: plain, short, the same on every call."""
    owner = hashlib.sha256(deployment.encode()).hexdigest()[:8]
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "" for c in lease_id)
    if plain != lease_id or len(plain) > 64:  # noqa: PLR2004  as a file name likes it
        plain = "h-" + hashlib.sha256(lease_id.encode()).hexdigest()[:40]
    return f"{owner}-{plain}"


@dataclass(frozen=True, slots=True)
class Label:
    incarnation: str
    deployment: str
    lease_id: str
    lease_number: int
    boot_id: str
    made_at_boot_s: float

    def age_s(self) -> float:
        """Return the seconds since it was made; after a reboot, at least those since then."""
        made = self.made_at_boot_s if self.boot_id == boot_id() else 0.0
        return max(0.0, boot_time() - made)


def new_label(lease: LeaseRef) -> Label:
    return Label(uuid4().hex, lease.deployment, lease.id, lease.number, boot_id(), boot_time())


@dataclass(frozen=True, slots=True)
class Directory:
    """One sandbox's directory, which may or may not exist."""

    root: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.root}/{_PREFIX}{self.name}"

    @property
    def control(self) -> str:
        return f"{self.path}/ctl"

    @property
    def io(self) -> str:
        return f"{self.path}/io"

    @property
    def disk(self) -> str:
        return f"{self.path}/disk"

    @property
    def running_file(self) -> str:
        return f"{self.path}/ctl/running"

    @property
    def gatekeeper_file(self) -> str:
        return f"{self.path}/ctl/gatekeeper"

    def execution(self, execution_id: str) -> str:
        return f"{self.path}/ctl/x/{execution_id}"

    def label(self) -> Label | None:
        try:
            with open(f"{self.path}/label.json", encoding="utf-8") as file:
                return Label(**json.load(file))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def create(
        self, label: Label, *, owner: tuple[int, int], fence: int, ttl: timedelta
    ) -> bool:
        """Make it, whole; False if somebody else was first."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        new = f"{self.root}/.new-{self.name}-{os.getpid()}-{uuid4().hex}"
        try:
            with effect("docker:directory-new"):
                self._fill(new, label, owner, fence, ttl)
            with effect("docker:directory-name"):
                os.rename(new, self.path)
        except OSError as error:
            _remove(new)
            if os.path.isdir(self.path):
                return False
            raise UnavailableError(f"cannot make {self.path}: {error.strerror}") from error
        return True

    def _fill(
        self, new: str, label: Label, owner: tuple[int, int], fence: int, ttl: timedelta
    ) -> None:
        modes = {
            "": 0o711, "ctl": 0o700, "ctl/fence": 0o700, "ctl/x": 0o700,
            "io": 0o711, "io/t": 0o711, "disk": 0o755, "disk/work": 0o755, "disk/home": 0o755,
        }  # fmt: skip
        for part, mode in modes.items():
            os.mkdir(f"{new}/{part}")
            os.chmod(f"{new}/{part}", mode)
        os.chown(f"{new}/disk/work", *owner)
        os.chown(f"{new}/disk/home", *owner)
        os.symlink("../io/deadline", f"{new}/ctl/deadline")
        with open(f"{new}/ctl/fence/{fence:020d}", "xb"):
            pass
        _write(f"{new}/io/deadline", _deadline(ttl), 0o644)
        text = json.dumps({key: getattr(label, key) for key in label.__slots__})
        _write(f"{new}/label.json", text, 0o600)

    # ---- fence and deadline ----------------------------------------------------------------

    def install_fence(self, fence: int, *, prune: bool = False) -> None:
        """
        Install `fence`, then refuse if a higher one is there.

        Raises:
            StaleFenceError: There is.
            SandboxGoneError: There is no such sandbox.
        """
        folder, name = f"{self.control}/fence", f"{fence:020d}"
        try:
            if not os.path.exists(f"{folder}/{name}"):
                with effect("docker:fence"):
                    os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
            names = sorted(os.listdir(folder))
        except FileNotFoundError as error:
            raise SandboxGoneError(f"there is no sandbox at {self.path}") from error
        if names[-1] != name:
            raise StaleFenceError(f"the sandbox has fence {int(names[-1])}, not {fence}")
        if prune:
            for old in names[:-1]:
                with suppress(FileNotFoundError):
                    os.unlink(f"{folder}/{old}")

    def highest_fence(self) -> int | None:
        try:
            return max(
                (int(name) for name in os.listdir(f"{self.control}/fence")), default=None
            )
        except FileNotFoundError:
            return None

    def set_deadline(self, ttl: timedelta) -> None:
        """Let the sandbox end `ttl` from now."""
        try:
            with effect("docker:deadline"):
                self.replace(f"{self.io}/deadline", _deadline(ttl), 0o644)
        except FileNotFoundError as error:
            raise SandboxGoneError(f"there is no sandbox at {self.path}") from error

    def seconds_left(self) -> float:
        """Return what is left of its time; zero if that is over, or the host was rebooted."""
        try:
            with open(f"{self.io}/deadline", encoding="ascii") as file:
                boot, at, _ = file.read().split()
        except FileNotFoundError as error:
            raise SandboxGoneError(f"there is no sandbox at {self.path}") from error
        return max(0.0, int(at) / 100 - boot_time()) if boot == boot_id() else 0.0

    def replace(self, path: str, text: str, mode: int) -> None:
        """Write a file of the sandbox whole or not at all."""
        _write(f"{path}.{uuid4().hex}", text, mode, final=path)

    # ---- the end ---------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove it, and what a death left of earlier tries; nothing of it may run any more."""
        with suppress(FileNotFoundError), effect("docker:directory-unname"):
            os.rename(self.path, f"{self.root}/.dead-{self.name}-{uuid4().hex}")
        with effect("docker:directory-delete"):
            self.clear(everything=True)

    def clear(self, *, everything: bool = False) -> None:
        """Delete unfinished and removed directories; those of living makers only if told."""
        new, dead = f".new-{self.name}-", f".dead-{self.name}-"
        with suppress(FileNotFoundError):
            for entry in os.listdir(self.root):
                if entry.startswith(dead):
                    _remove(f"{self.root}/{entry}")
                elif entry.startswith(new):
                    maker = entry.removeprefix(new).split("-")[0]
                    if everything or not os.path.exists(f"/proc/{maker}"):
                        _remove(f"{self.root}/{entry}")


def directories(root: str) -> Iterator[tuple[Directory, Label]]:
    """Yield every sandbox below `root` with its label."""
    try:
        entries = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for entry in entries:
        directory = Directory(root, entry.removeprefix(_PREFIX))
        if entry.startswith(_PREFIX) and (label := directory.label()):
            yield directory, label


def _deadline(ttl: timedelta) -> str:
    seconds = ttl.total_seconds()
    return f"{boot_id()} {round((boot_time() + seconds) * 100)} {round(seconds * 100 / 3)}\n"


def _write(path: str, text: str, mode: int, *, final: str | None = None) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with open(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, mode)
        file.write(text)
    if final is not None:
        os.rename(path, final)


def _remove(path: str) -> None:
    # By descriptor: `rmtree` follows no link that a command left, not even a swapped one.
    for _ in range(3):
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
        if not os.path.lexists(path):
            return
