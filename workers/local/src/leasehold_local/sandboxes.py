"""
Sandboxes on disk: make, adopt, take up again, list, destroy.

The directory and its label are authoritative; nothing is kept in memory. A sandbox is made
under a temporary name, complete with label, fence and deadline, and then renamed: whoever sees
its name sees all of it, and of several that make it at once one wins and the others adopt.

A destroy ends every execution, renames `ctl` away (from then on the sandbox is gone: no fence,
no start), removes the rest and the label last, so that a half destroyed sandbox is still listed
and the next destroy goes on. What happens if we die here?

- Before the rename into place: a directory below `.new` named after the process that made it.
  It is removed by the next destroy or listing after that process is gone.
- Anywhere in a destroy: the lease still owes it; repeating finishes it.
"""

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from leasehold.provider import (
    Acquired,
    Budget,
    Handle,
    Json,
    LeaseRef,
    Owned,
    Sandbox,
    SandboxGoneError,
    UnavailableError,
    effect,
)

from leasehold_local import cgroups, layout, processes
from leasehold_local import config as configs
from leasehold_local.layout import Label, disk

ROOMS: Final = ("work", "home", "tmp")
_CONTROL: Final = ("ctl", "ctl/fence", "ctl/x", "ctl/spool")
_TRIES: Final = 50


class Sandboxes:
    """All sandboxes below one root, of one deployment."""

    def __init__(
        self, root: str, deployment: str, host_id: str, ground: configs.Ground
    ) -> None:
        self.root, self.deployment, self.host_id = root, deployment, host_id
        self.ground = ground

    def path(self, lease_id: str) -> str:
        return f"{self.root}/{layout.name_of(lease_id)}"

    def acquire(
        self,
        lease: LeaseRef,
        config: Json,
        known: Handle | None,
        ttl: timedelta,
        fence: int,
        budget: Budget,
    ) -> Sandbox:
        """Return the lease's sandbox, made, adopted or taken up again."""
        path = self.path(lease.id)
        while True:
            budget.check()
            label = layout.read_label(path)
            if label is not None and layout.has_control(path):
                if not layout.is_meant(label, lease.deployment, lease.id, known or {}):
                    raise SandboxGoneError(f"another sandbox stands at {path} now")
                return self._take_up(path, label, known, ttl, fence)
            if known:
                raise SandboxGoneError(f"there is no sandbox at {path}")
            if os.path.lexists(path):
                self._clear_rest(path, label, lease)
            made = self._make(path, lease, config, ttl, fence)
            if made is not None:
                return self._answer(path, made, Acquired.CREATED)

    def _take_up(
        self, path: str, label: Label, known: Handle | None, ttl: timedelta, fence: int
    ) -> Sandbox:
        layout.install_fence(path, fence)
        with disk("preparing the sandbox", path):
            self._furnish(path)
        layout.write_deadline(path, ttl.total_seconds())
        return self._answer(path, label, Acquired.RESUMED if known else Acquired.ADOPTED)

    def _answer(self, path: str, label: Label, outcome: Acquired) -> Sandbox:
        return Sandbox(
            sandbox_id=path,
            handle={"v": layout.LABEL_VERSION, "incarnation": label.incarnation},
            outcome=outcome,
            remote_cwd=self.remote_cwd(path),
            metadata={"host_id": label.host, "cgroups": list(label.groups)},
        )

    def remote_cwd(self, path: str) -> str:
        """Return where a command starts, as the command sees it."""
        return f"{path}/work"

    def _furnish(self, path: str) -> None:
        """Make the command's directories, where they are missing."""
        for room in ROOMS:
            os.makedirs(f"{path}/{room}", mode=0o700, exist_ok=True)

    def _clear_rest(self, path: str, label: Label | None, lease: LeaseRef) -> None:
        """Finish a destroy that was cut short, so that the name is free."""
        if label is not None:
            if not layout.is_meant(label, lease.deployment, lease.id, {}):
                raise UnavailableError(f"{path} belongs to another deployment", retryable=False)
            self.remove(path, label)
            return
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if layout.read_label(path) is not None:
                return  # somebody else made it just now
            text = f"{path} is in the way: it has no label of ours ({error.strerror})"
            raise UnavailableError(text) from error

    def _make(
        self, path: str, lease: LeaseRef, config: Json, ttl: timedelta, fence: int
    ) -> Label | None:
        """Build it aside and rename it into place; None if somebody else was first."""
        name = os.path.basename(path)
        limits = self.ground.group_limits(config)
        bases = [limit.base for limit, _ in limits]
        if self.ground.tree and self.ground.tree not in bases:
            bases.append(self.ground.tree)
        label = Label(
            deployment=self.deployment,
            lease=lease.id,
            number=lease.number,
            tenant=lease.tenant_id,
            environment=lease.environment_id,
            host=self.host_id,
            incarnation=os.urandom(8).hex(),
            boot=processes.boot_id(),
            created_cs=processes.now_cs(),
            groups=tuple(f"{base}/{name}" for base in bases),
        )
        ours = processes.stat(os.getpid())
        began = ours.began if ours else 0
        aside = f"{self.root}/.new/{os.getpid()}.{began}.{os.urandom(6).hex()}"
        try:
            with disk("making the sandbox"):
                with effect("local:mkdir"):
                    self._make_aside(aside)
                    self._furnish(aside)
                    for folder in _CONTROL:
                        os.mkdir(f"{aside}/{folder}", 0o700)
                with effect("local:label"):
                    _write(f"{aside}/ctl/fence/{layout.fence_name(fence)}", "")
                    _write(f"{aside}/ctl/deadline", layout.deadline_text(ttl.total_seconds()))
                    _write(f"{aside}/label.json", layout.label_text(label))
            with disk("putting the sandbox in its place"), effect("local:place"):
                try:
                    os.rename(aside, path)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                    shutil.rmtree(aside, ignore_errors=True)
                    return None
        except UnavailableError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return label

    def _make_aside(self, aside: str) -> None:
        while True:
            os.makedirs(f"{self.root}/.new", mode=0o700, exist_ok=True)
            try:
                os.mkdir(aside, 0o700)
            except FileNotFoundError:
                continue  # whoever swept took `.new` away, being empty
            return

    # ---- the end ---------------------------------------------------------------------------

    def remove(self, path: str, label: Label) -> None:
        """
        Remove a sandbox whose executions have ended; safe to repeat.

        A lease id is never acquired again once its destroy was owed; looking at the label once
        more keeps a late second destroy from whatever stands there against that rule.
        """
        if layout.read_label(path) != label:
            return
        for group in label.groups:
            cgroups.kill(group)
        with (
            contextlib.suppress(FileNotFoundError),
            disk_unless_missing("removing the sandbox"),
            effect("local:vanish"),
        ):
            os.rename(f"{path}/ctl", f"{path}/ctl.gone")
        for group in label.groups:
            cgroups.kill(group)
            _remove_group(group)
        for name in (*ROOMS, "ctl.gone"):
            with effect("local:rmtree"):
                _remove_tree(f"{path}/{name}")
        with disk_unless_missing("removing the sandbox"):
            for entry in os.listdir(path):
                if entry != "label.json":
                    _remove_tree(f"{path}/{entry}")
            with effect("local:unlabel"):
                os.unlink(f"{path}/label.json")
            with effect("local:rmdir"):
                os.rmdir(path)

    def sweep(self) -> None:
        """Remove what processes left that died while they made or left a sandbox."""
        for base in self.ground.bases():
            self._sweep_groups(base)
        folder = f"{self.root}/.new"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                pid, began, _ = name.split(".")
                if not processes.lives(int(pid), int(began)):
                    _remove_tree(f"{folder}/{name}")
            os.rmdir(folder)

    def _sweep_groups(self, base: str) -> None:
        """Remove the directories of sandboxes that are gone; ours alone are below `base`."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(base):
                if entry.is_dir() and not os.path.lexists(f"{self.root}/{entry.name}"):
                    cgroups.remove(entry.path)
            os.rmdir(base)

    def owned(self, deployment: str) -> Iterator[Owned]:
        """List by label alone; what has none is not ours."""
        self.sweep()
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(f"cannot list {self.root}: {error.strerror}") from error
        for name in names:
            path = f"{self.root}/{name}"
            label = layout.read_label(path) if name.startswith("lease-") else None
            if label is not None and label.deployment == deployment:
                yield Owned(
                    handle={"v": layout.LABEL_VERSION, "incarnation": label.incarnation},
                    lease_id=label.lease,
                    lease_number=label.number,
                    fence=layout.current_fence(path),
                    age_s=label.age_s,
                    sandbox_id=path,
                )


@contextlib.contextmanager
def disk_unless_missing(doing: str) -> Iterator[None]:
    """Like `disk`, but what is missing is what was wanted."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnavailableError(f"{doing}: {error.strerror} ({error.filename})") from error


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8", opener=_private) as file:
        file.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove_group(group: str) -> None:
    """Remove a sandbox's cgroup, and ours above it if it was the last."""
    pause = threading.Event()
    for _ in range(_TRIES):
        if cgroups.remove(group):
            break
        pause.wait(0.02)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(group))


def _remove_tree(path: str) -> None:
    """Remove a tree, also one whose directories were made unreadable."""

    def mend(function: Any, failed: str, error: BaseException) -> None:
        del function
        if isinstance(error, FileNotFoundError):
            return
        parent = os.path.dirname(failed)
        with contextlib.suppress(OSError):
            os.chmod(parent, stat.S_IRWXU)
            if not os.path.islink(failed) and os.path.isdir(failed):
                os.chmod(failed, stat.S_IRWXU)

    def onerror(function: Any, failed: str, info: Any) -> None:
        mend(function, failed, info[1])

    for _ in range(3):
        shutil.rmtree(path, onerror=onerror)
        if not os.path.lexists(path):
            return
        with contextlib.suppress(OSError):
            Path(path).unlink()
    if os.path.lexists(path):
        raise UnavailableError(f"cannot remove {path}: something still writes there")
