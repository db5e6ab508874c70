"""
Where things are on disk, and what may be concluded from them.

    <root>/lease-<lease id>/          0700; appears whole, by rename
        label.json                    who it belongs to; the last thing that a destroy removes
        work/ home/ tmp/              the command's: current directory, HOME, TMPDIR
        ctl/                          ours; a destroy begins by renaming it away
            fence/<20 digits>         empty; the highest name is the current fence
            deadline                  "<boot id> <when> <renewal>", 1/100 s since boot
            spool/                    files on their way into the sandbox
            x/<execution id>/         the claim; appears whole, by rename, with `boot` in it
                boot                  symbolic link: the boot in which it was claimed
                go                    symbolic link, made once: "run <identities>", or a
                                      tombstone "by-settle", "by-cancel", "by-destroy", "lost"
                end                   symbolic link, made once: "<who>@<since>@<grace>"
                out err               the output up to the cap
                exit                  symbolic link, made once: the last word

A symbolic link is the cheapest thing that is won atomically *and* carries a value: one call to
make it, one to read it, never half there, and journalled with the directory.

`boot` is there because a machine that loses power may forget `go`: a claim of an earlier boot
without `go` proves nothing, so it is settled as lost and never as "never started".
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from leasehold.provider import (
    Handle,
    SandboxGoneError,
    StaleFenceError,
    Target,
    UnavailableError,
    effect,
)

from leasehold_local.processes import Identity, boot_id, now_cs

LABEL_VERSION: Final = 1
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No room for a new name; what exists can still be renamed and removed."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


@contextlib.contextmanager
def disk(doing: str, sandbox: str | None = None) -> Iterator[None]:
    """
    Turn an error of the file system into the contract's.

    Raises:
        SandboxGoneError: `sandbox` has no control directory (any more).
        UnavailableError: Anything else; the message says what was tried and why it failed.
    """
    try:
        yield
    except OSError as error:
        if (
            sandbox
            and error.errno in {errno.ENOENT, errno.ENOTDIR}
            and not has_control(sandbox)
        ):
            raise SandboxGoneError(f"there is no sandbox at {sandbox}") from error
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(f"{doing}: {why} ({error.filename or sandbox})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Whose sandbox it is; holds no secret and nothing of the config."""

    deployment: str
    lease: str
    number: int
    tenant: str
    environment: str
    host: str
    incarnation: str
    boot: str
    created_cs: int
    groups: tuple[str, ...] = ()
    """Cgroup directories of the sandbox, one per hierarchy."""

    v: int = LABEL_VERSION

    @property
    def age_s(self) -> float:
        """Seconds since it was made; after a reboot at least the machine's uptime."""
        return (now_cs() - (self.created_cs if self.boot == boot_id() else 0)) / 100


def name_of(lease_id: str) -> str:
    """Return the directory's name, a function of the lease id alone."""
    if _PLAIN.match(lease_id):
        return f"lease-{lease_id}"
    return f"lease-h-{hashlib.sha256(lease_id.encode()).hexdigest()}"


def read_label(sandbox: str) -> Label | None:
    """Return the label; None if there is none or it is not one of ours."""
    try:
        with open(f"{sandbox}/label.json", encoding="utf-8") as file:
            fields = json.load(file)
        return Label(**{**fields, "groups": tuple(fields["groups"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def label_text(label: Label) -> str:
    return json.dumps(asdict(label), sort_keys=True)


def has_control(sandbox: str) -> bool:
    return os.path.isdir(f"{sandbox}/ctl/x")


def check_incarnation(sandbox: str, target: Target) -> Label:
    """
    Return the label of the sandbox that the target means.

    Raises:
        SandboxGoneError: It is gone, half destroyed, or another incarnation stands there.
    """
    label = read_label(sandbox)
    if label is None or not has_control(sandbox):
        raise SandboxGoneError(f"there is no sandbox at {sandbox}")
    if not is_meant(label, target.lease.deployment, target.lease.id, target.handle):
        raise SandboxGoneError(f"another sandbox stands at {sandbox} now")
    return label


def is_meant(label: Label, deployment: str, lease_id: str, handle: Handle) -> bool:
    """Tell whether a label is this lease's, and of the handle's incarnation if it has one."""
    if label.deployment != deployment or label.lease != lease_id:
        return False
    return bool(handle.get("incarnation", label.incarnation) == label.incarnation)


# ---- fences ----------------------------------------------------------------------------------


def fence_name(fence: int) -> str:
    return f"{fence:020d}"


def current_fence(sandbox: str) -> int | None:
    try:
        return int(max(os.listdir(f"{sandbox}/ctl/fence"), default="0"))
    except (OSError, ValueError):
        return None


def install_fence(sandbox: str, fence: int) -> None:
    """
    Make `fence` the sandbox's, or refuse.

    No lock: the name is made first, then all names are looked at. Of two that race, the lower
    one sees the higher, or the higher one came after and finds what the lower has done.

    Raises:
        StaleFenceError: A higher one is there.
        SandboxGoneError: There is no sandbox.
    """
    folder, name = f"{sandbox}/ctl/fence", fence_name(fence)
    with disk("installing the fence", sandbox):
        names = os.listdir(folder)
        if name not in names:
            with effect("local:fence"):
                _make_fence(folder, name, max(names, default=name))
            names = os.listdir(folder)
    highest = max(names)
    if highest > name:
        raise StaleFenceError(f"the sandbox has fence {int(highest)}, ours is {fence}")
    for old in names:
        if old < name:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{old}")


def _make_fence(folder: str, name: str, top: str) -> None:
    """Make the name; on a full disk rename the lower one, so that a destroy can free it."""
    try:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        if error.errno not in FULL or top >= name:
            raise
        os.rename(f"{folder}/{top}", f"{folder}/{name}")


# ---- the sandbox's own end -------------------------------------------------------------------


def write_deadline(sandbox: str, ttl_s: float) -> None:
    """Replace the deadline; `x/` is looked at last, so a destroyed sandbox gets none."""
    text = deadline_text(ttl_s)
    temporary = f"{sandbox}/ctl/.deadline.{os.getpid()}.{now_cs()}.{os.urandom(4).hex()}"
    with disk("writing the deadline", sandbox), effect("local:deadline"):
        with open(temporary, "x", encoding="ascii") as file:
            file.write(text)
        os.rename(temporary, f"{sandbox}/ctl/deadline")


def deadline_text(ttl_s: float) -> str:
    """Say when it ends and how long a renewal takes: a third of the time to live."""
    return f"{boot_id()} {now_cs() + int(ttl_s * 100)} {int(ttl_s * 100 / 3)}"


def seconds_left(sandbox: str) -> float | None:
    """Return the seconds to the sandbox's own end, negative after it; None: no end is known."""
    try:
        with open(f"{sandbox}/ctl/deadline", encoding="ascii") as file:
            boot, at, _ = file.read().split()
    except (OSError, ValueError):
        return None
    return (int(at) - now_cs()) / 100 if boot == boot_id() else None


def is_awaited(sandbox: str) -> bool:
    """
    Say whether a command runs here whose end nobody has decided.

    After the time to live such a sandbox has not ended yet: its supervisor was stopped with the
    whole machine, and waits one renewal when it wakes.
    """
    try:
        names = os.listdir(f"{sandbox}/ctl/x")
    except FileNotFoundError:
        return False
    return any(_is_undecided(f"{sandbox}/ctl/x/{name}") for name in names if name[0] != ".")


def _is_undecided(place: str) -> bool:
    words = value(f"{place}/go")
    begun = words is not None and parse_go(words) is not None
    return begun and value(f"{place}/end") is None and value(f"{place}/exit") is None


# ---- executions ------------------------------------------------------------------------------


def value(path: str) -> str | None:
    """Read a symbolic link; None if it is not there."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise


def win(path: str, text: str) -> bool:
    """Make a symbolic link; false if it is there already."""
    try:
        os.symlink(text, path)
    except FileExistsError:
        return False
    return True


def parse_go(text: str) -> Identity | None:
    """Return who runs it, or None for a tombstone."""
    words = text.split(" ", 7)
    if len(words) != 8 or words[0] != "run":  # noqa: PLR2004 - "run" and seven fields
        return None
    a, b, c, d = map(int, words[1:5])
    group = None if words[7] == "-" else words[7]
    return Identity(a, b, c, d, words[5], int(words[6]), group)


def claim(sandbox: str, execution_id: str, *, tombstone: str | None = None) -> bool:
    """Make the execution's directory, whole at once; false if it exists."""
    folder = f"{sandbox}/ctl/x"
    place = f"{folder}/{execution_id}"
    if os.path.isdir(place):
        return False
    temporary = f"{folder}/.{os.urandom(8).hex()}"
    with disk("claiming the execution", sandbox):
        with effect("local:claim_prepare"):
            os.mkdir(temporary, 0o700)
            os.symlink(boot_id(), f"{temporary}/boot")
            if tombstone:
                os.symlink(tombstone, f"{temporary}/go")
        try:
            with effect("local:claim"):
                os.rename(temporary, place)
        except OSError as error:
            for name in os.listdir(temporary):
                os.unlink(f"{temporary}/{name}")
            os.rmdir(temporary)
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            raise
    return True
