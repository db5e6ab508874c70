"""
The world of the `fake` provider: a directory, so that it survives its worker.

    <root>/sb/<lease id>/label      JSON: lease id, number, deployment, when made
                         fence.<n>  the current fence is the highest name
                         deadline   boot time at which the sandbox is gone by itself
                         paused     there while suspended
                         x/<id>/    an execution's claim (mkdir decides)
                         x/<id>/run what it does, or a tombstone; made by link: once, for ever
                         x/<id>/end why it was ended early; made by link
                         work/      files put there
    <root>/new.<lease id>.*         a sandbox in the making; <root>/old.<lease id>.*: a rest
    <root>/faults/<method>/<n>      a scripted fault; whoever unlinks it first meets it
    <root>/capacity                 how many sandboxes fit

Every decision is one atomic name, so any number of processes may act at once and any of them
may die between two names. No process ever runs: a command is a stamp on the clock.
"""

# pathlib's calls cost a third of a no-op run:
# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH110, PTH116

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from leasehold import errors
from leasehold.errors import ProviderError, SandboxGoneError, StaleFenceError
from leasehold.provider.budget import boot_time
from leasehold.seams import effect

_FENCE: Final = "fence."
_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ProviderError)
}


def _mark() -> str:
    return f"{os.getpid()}.{os.urandom(6).hex()}"


def _write(path: str, data: bytes = b"") -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)


def publish(path: Path | str, value: Any) -> bool:
    """Make `path` hold this JSON unless it is there already; say whether it was us."""
    fresh = f"{path}.{_mark()}"
    try:
        _write(fresh, json.dumps(value).encode())
        os.link(fresh, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise SandboxGoneError(f"there is no {path}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
    return True


def delete(path: str) -> None:
    """Remove a tree; what another one removes meanwhile is fine."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    delete(entry.path)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        return


def load(path: Path) -> Any:
    """Return the JSON in a file, or None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


class World:
    """What exists; tests script it and count in it."""

    def __init__(self, root: Path | str, *, now: Callable[[], float] = boot_time) -> None:
        self.root = Path(root)
        self.now = now
        self._boxes = self.root / "sb"
        self._faults = self.root / "faults"

    # What tests do.

    def sandboxes(self) -> list[str]:
        """Return the lease ids of the sandboxes that exist now."""
        with suppress(FileNotFoundError):
            return sorted(p.name for p in self._boxes.iterdir() if self.exists(p.name))
        return []

    def starts(self, execution_id: str) -> int:
        """Return how often an execution was started; a claim alone is no start."""
        found = [load(path / "run") for path in self._boxes.glob(f"*/x/{execution_id}")]
        return sum(1 for plan in found if plan and not plan.get("tombstone"))

    def executions(self) -> list[str]:
        """Return the ids of all executions that were claimed in the sandboxes of now."""
        return sorted(path.name for path in self._boxes.glob("*/x/*"))

    def lose(self, lease_id: str) -> None:
        """Let a sandbox vanish, as a machine does that burns down."""
        self._take_away(lease_id)

    def set_capacity(self, capacity: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "capacity").write_text(str(capacity))

    def script(
        self,
        method: str,
        *,
        fail: str | None = None,
        times: int = 1,
        delay_s: float = 0.0,
        after_effect: bool = False,
    ) -> None:
        """
        Let the next `times` calls of a method be slow, or fail.

        Args:
            fail: Code of a provider error (``provider_unavailable``, ``sandbox_lost``, …).
            after_effect: Do the effect, then fail: its answer is lost.
        """
        place = self._faults / method
        place.mkdir(parents=True, exist_ok=True)
        taken = len(list(place.iterdir()))
        fault = {"fail": fail, "delay_s": delay_s, "after_effect": after_effect}
        for number in range(taken, taken + times):
            publish(place / f"{number:06d}-{os.urandom(3).hex()}", fault)

    # What the provider does.

    def next_fault(self, method: str) -> dict[str, Any] | None:
        """Take the next scripted fault of a method, if there is one."""
        try:
            names = sorted(os.listdir(self._faults / method))
        except FileNotFoundError:
            return None
        for name in names:
            path = self._faults / method / name
            fault: dict[str, Any] | None = load(path)
            with suppress(FileNotFoundError):
                path.unlink()
                return fault
        return None

    def capacity(self) -> int | None:
        try:
            return int((self.root / "capacity").read_text())
        except FileNotFoundError:
            return None

    def count(self) -> int:
        try:
            return len(os.listdir(self._boxes))
        except FileNotFoundError:
            return 0

    def box(self, lease_id: str) -> Path:
        return self._boxes / lease_id

    def exists(self, lease_id: str) -> bool:
        """Return whether a sandbox is there; one whose own time is over is removed."""
        box = self.box(lease_id)
        deadline = load(box / "deadline")
        if deadline is None:
            return box.is_dir()
        if deadline > self.now():
            return True
        self._take_away(lease_id)
        return False

    def incarnation(self, lease_id: str) -> str | None:
        """Return the mark of the sandbox that is there now; its label is written once."""
        try:
            seen = os.stat(self._boxes / lease_id / "label")
        except FileNotFoundError:
            return None
        return f"{seen.st_ino:x}.{seen.st_mtime_ns:x}"

    def open(self, lease_id: str, handle: Mapping[str, Any] | None = None) -> Path:
        """
        Return the directory of a sandbox, of the incarnation that the handle names.

        Raises:
            SandboxGoneError: It is not there, is another, or its own time to live is over.
        """
        wanted = (handle or {}).get("incarnation")
        if not self.exists(lease_id) or wanted not in {None, self.incarnation(lease_id)}:
            raise SandboxGoneError(f"sandbox of lease {lease_id} is gone")
        return self.box(lease_id)

    def create(self, lease_id: str, label: dict[str, Any], *, fence: int, ttl_s: float) -> bool:
        """Make a sandbox appear, label, fence, deadline and all; False: it was there."""
        self._boxes.mkdir(parents=True, exist_ok=True)
        fresh = f"{self.root}/new.{lease_id}.{_mark()}"
        with effect("fake:make"):
            os.mkdir(fresh)
            os.mkdir(f"{fresh}/x")
            _write(f"{fresh}/label", json.dumps(label).encode())
            _write(f"{fresh}/deadline", str(self.now() + ttl_s).encode())
            _write(f"{fresh}/fence.{fence}")
        try:
            with effect("fake:create"):
                os.rename(fresh, self.box(lease_id))
        except OSError:
            delete(fresh)
            if not self.box(lease_id).is_dir():
                raise
            return False
        return True

    def push_on(self, box: Path, ttl_s: float) -> None:
        """
        Let a sandbox live `ttl_s` from now.

        Raises:
            SandboxGoneError: It is not there any more.
        """
        # A name of our own: two that write one file would publish half of it.
        fresh = f"{box}/deadline.{_mark()}"
        with effect("fake:deadline"):
            try:
                _write(fresh, str(self.now() + ttl_s).encode())
                os.rename(fresh, f"{box}/deadline")
            except FileNotFoundError:
                raise SandboxGoneError(f"{box.name} is gone") from None

    def fence(self, box: Path) -> int:
        try:
            names = os.listdir(box)
        except FileNotFoundError:
            raise SandboxGoneError(f"{box.name} is gone") from None
        return max((int(n[len(_FENCE) :]) for n in names if n.startswith(_FENCE)), default=0)

    def install(self, box: Path, fence: int) -> None:
        """
        Install a fence, then look whether it is the highest.

        Raises:
            StaleFenceError: A higher one is there.
        """
        path = f"{box}/fence.{fence}"
        if not os.path.exists(path):
            with effect("fake:fence"):
                try:
                    _write(path)
                except FileNotFoundError:
                    raise SandboxGoneError(f"{box.name} is gone") from None
        highest = self.fence(box)
        if highest > fence:
            raise StaleFenceError(f"fence {fence} is stale: {highest} is installed")

    def remove(self, lease_id: str) -> None:
        """Remove a sandbox, and what a death left of making or removing it."""
        with effect("fake:remove"):
            self._take_away(lease_id)
        names: list[str] = []
        with suppress(FileNotFoundError):
            names = os.listdir(self.root)
        for name in names:
            if name.startswith((f"new.{lease_id}.", f"old.{lease_id}.")):
                with effect("fake:clear"):
                    delete(f"{self.root}/{name}")

    def _take_away(self, lease_id: str) -> None:
        # First its name, so that nobody finds a half of it.
        rest = f"{self.root}/old.{lease_id}.{_mark()}"
        with suppress(FileNotFoundError):
            os.rename(self.box(lease_id), rest)
            delete(rest)

    def labels(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield every sandbox with its label."""
        try:
            names = sorted(os.listdir(self._boxes))
        except FileNotFoundError:
            return
        for name in names:
            label = load(self._boxes / name / "label")
            if label is not None and self.exists(name):
                yield self._boxes / name, label


class Meeting:
    """Meets a scripted fault: before the call's effect, or instead of its answer."""

    __slots__ = ("_fault", "_sleep")

    def __init__(self, fault: Mapping[str, Any] | None, sleep: Callable[[float], None]) -> None:
        self._fault, self._sleep = fault, sleep

    def __enter__(self) -> None:
        if self._fault is not None:
            if self._fault["delay_s"]:
                self._sleep(self._fault["delay_s"])
            if not self._fault["after_effect"]:
                self._fail()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._fault is not None and self._fault["after_effect"]:
            self._fail()

    def _fail(self) -> None:
        assert self._fault is not None
        if self._fault["fail"]:
            raise _ERRORS[self._fault["fail"]](f"scripted: {self._fault['fail']}")
