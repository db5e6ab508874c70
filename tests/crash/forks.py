"""
Fork a worker into a cell, let it die where it was told, and wait for it with a limit.

The child never returns into the test runner: it ends by SIGKILL or by `os._exit`. It dies with
the runner (parent-death signal), so nothing stays behind if the runner itself is killed.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final

from crash.harness import Cell
from leasehold import log, seams
from leasehold.errors import StoreUnavailableError
from leasehold.orchestrator import chain
from leasehold.provider import registry
from leasehold.store import leases
from leasehold.store.database import Row, Tx

LIFE_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_FAILED: Final = 3
_PLUGINS: Final = entry_points(group=registry.GROUP)
"""Scanning every installed distribution for plugins is done once, not in every fork."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a worker kills itself: at the nth time that it passes a point."""

    point: str
    nth: int
    answer_lost: bool = False
    """It does not die: the database's answer is lost there, and the worker goes on."""

    def __str__(self) -> str:
        return f"{self.point}#{self.nth}"


Watch = Callable[[str, int], None]


def worker(
    cell: Cell,
    generation: int,
    main: Callable[[Callable[[Watch | None], "Listening"]], None],
    *,
    kill: Kill | None,
) -> bool:
    """
    Run `main` in a forked child; return True if it killed itself as told.

    Raises:
        AssertionError: It failed, or was not over in time; with its log.
    """
    pid = os.fork()
    if pid == 0:
        _child(cell, generation, main, kill)
    handle = os.pidfd_open(pid)
    try:
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        in_time = watch.poll(LIFE_S * 1000)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(handle)
    assert in_time, f"worker {generation} was not over in {LIFE_S:g} s\n{cell.logs()}"
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, cell.logs()
        assert kill is not None, cell.logs()
        return True
    assert os.WEXITSTATUS(status) == 0, f"worker {generation} failed\n{cell.logs()}"
    return False


class Listening:
    """Writes down each point as it is passed; dies at one of them."""

    def __init__(
        self, cell: Cell, generation: int, kill: Kill | None, watch: Watch | None
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(cell.path / f"points-{generation}", flags, 0o600)
        self._seen: Counter[str] = Counter()
        self._kill, self._watch = kill, watch
        self._context = seams.listening(self._passed)

    def _passed(self, name: str) -> None:
        os.write(self._file, f"{name}\n".encode())
        self._seen[name] += 1
        nth = self._seen[name]
        if self._kill is not None and (name, nth) == (self._kill.point, self._kill.nth):
            if self._kill.answer_lost:
                raise StoreUnavailableError(f"the answer was lost at {self._kill}")
            os.kill(os.getpid(), signal.SIGKILL)
        if self._watch is not None:
            self._tell(name, nth)

    def _tell(self, name: str, nth: int) -> None:
        """Tell the story's watch; a fault of its own must not look like one of a provider."""
        assert self._watch is not None
        try:
            self._watch(name, nth)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            os._exit(_FAILED)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)


def _plain(value: Any) -> Any:
    """Return what a JSON column means; the databases keep its text differently."""
    with suppress(ValueError):
        if isinstance(value, str) and value[:1] in {"{", "["}:
            return json.loads(value)
    return value


def _distrust_memory() -> None:
    """Compare what a holder remembers of its rows with all that is stored, at each hold."""
    hold, hold_both = leases.hold, leases.hold_both

    def check(tx: Tx, table: str, row: Row) -> None:
        stored = tx.one(f"SELECT * FROM {table} WHERE id = :id", id=row["id"])
        assert stored is not None
        wrong = {n: (row[n], v) for n, v in stored.items() if _plain(row[n]) != _plain(v)}
        assert not wrong, f"{table} {row['id']}: remembered and stored: {wrong}"

    def one(tx: Tx, held: Row, *, fence: int) -> Row:
        lease = hold(tx, held, fence=fence)
        if lease["claimed_by"] == held["claimed_by"]:
            check(tx, "leases", lease)
        return lease

    def both(tx: Tx, held: Row, run: Row, *, fence: int) -> tuple[Row, Row]:
        lease, after = hold_both(tx, held, run, fence=fence)
        # If not: its own write, whose answer was lost. The engine reads all of it again then.
        same = ("step", "starts", "claimed_by")
        if all(after[name] == run[name] for name in same):
            check(tx, "leases", lease)
            check(tx, "runs", after)
        return lease, after

    setattr(leases, "hold", one)  # noqa: B010
    setattr(leases, "hold_both", both)  # noqa: B010


def _child(
    cell: Cell,
    generation: int,
    main: Callable[[Callable[[Watch | None], Listening]], None],
    kill: Kill | None,
) -> None:
    code = _FAILED
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        sys.stderr = (cell.path / f"log-{generation}").open("a", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.configure(level="INFO")
        # How long a worker waits for a database that is away; it is back at once here.
        setattr(chain, "_RETRY_S", 0.005)  # noqa: B010
        setattr(registry, "entry_points", lambda group: _PLUGINS)  # noqa: B010
        _distrust_memory()
        main(lambda watch: Listening(cell, generation, kill, watch))
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def until(look: Callable[[], bool], what: str, *, within_s: float = 10.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < end, f"did not come true: {what}"
        time.sleep(0.005)
