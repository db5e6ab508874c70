"""When an agent calls a child stuck, and when it fills a place again."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import psutil
import pytest

from leasehold import seams
from leasehold.agent.child import ALIVE, READY, Orders
from leasehold.agent.children import STARTING_S, Child, Children
from leasehold.store.database import Database

SILENT_S: Final = 20.0
STEP_S: Final = 5.0
"""Shorter than what an agent takes for a stop of its own."""

IMPORTS_FOR_EVER: Final = "import signal\nwhile True: signal.pause()\n"
SPEAKS: Final = "import os, sys\nos.write(int(sys.orig_argv[-1]), {!r})\n"
SPEAKS_ONCE: Final = SPEAKS.format(ALIVE)
CONSUMES: Final = SPEAKS.format(ALIVE + READY)
DIES: Final = "import os\nos._exit(3)\n"


class Nursery:
    """Real processes whose very first import does what a test says, and a time of our own."""

    def __init__(
        self, database: Database, place: Path, set_variable: Callable[[str, str], None]
    ) -> None:
        self.at = 1000.0
        self._database, self._place, self._set_variable = database, place, set_variable
        self.keep(spare=False)

    def keep(self, *, spare: bool) -> None:
        """Begin with one place for a worker, and with or without a spare beside it."""
        self.children = Children(
            self._database,
            orders=_orders,
            nudge=lambda: None,
            silent_s=SILENT_S,
            spare=spare,
        )
        self.children.add("steps", threads=1)

    @staticmethod
    def alive() -> int:
        """Return how many processes there are, the spare too."""
        return len(psutil.Process().children())

    def now(self) -> float:
        return self.at

    def grow(self, code: str) -> None:
        """Say what later children do before they have imported anything of ours."""
        # A directory each: those that are there may not have read theirs yet.
        place = Path(mkdtemp(dir=self._place))
        (place / "sitecustomize.py").write_text(code)
        self._set_variable("PYTHONPATH", str(place))

    def born(self) -> int:
        """Turn once, in which a child must be started; return its pid."""
        self.children.turn(0)
        [pid] = self.children.pids()
        return pid

    def wait(self, seconds: float) -> None:
        """Let so much time pass, turn after turn."""
        until = self.at + seconds
        while self.at < until:
            self.at = min(self.at + STEP_S, until)
            self.children.turn(0)

    def end(self) -> signal.Signals:
        """End the child; return what it died of: ours, unless KILL was there before."""
        [pid] = self.children.pids()
        os.kill(pid, signal.SIGTERM)
        how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert how is not None
        return signal.Signals(how.si_status)

    def gap(self) -> float:
        """Return the time between the death of a child, which is awaited, and a birth."""
        [pid] = self.children.pids()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        died_at = self.at
        self.children.turn(0)
        while not self.children.pids():
            self.at += 0.1
            self.children.turn(0)
        assert self.children.pids() != [pid]
        return self.at - died_at


def _orders(slot: Child) -> Orders:
    return Orders(
        kind=slot.kind,
        worker_id=slot.worker_id,
        session_id="none",
        host_id="none",
        beacon="none",
        parent=os.getpid(),
        threads=1,
    )


@pytest.fixture
def nursery(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Nursery]:
    copy = tmp_path / "leasehold.db"
    shutil.copyfile(sqlite_template, copy)
    database = Database(f"sqlite:///{copy}")
    nursery = Nursery(database, tmp_path, monkeypatch.setenv)
    machine = replace(seams._machine[-1], boot_time=nursery.now)
    monkeypatch.setattr(seams, "_machine", [machine])
    yield nursery
    nursery.children.kill()
    database.close()


@pytest.mark.parametrize(
    ("silent_s", "end"), [(STARTING_S, signal.SIGTERM), (STARTING_S + 1, signal.SIGKILL)]
)
def test_a_child_that_still_imports_is_not_called_silent(
    nursery: Nursery, silent_s: float, end: signal.Signals
) -> None:
    nursery.grow(IMPORTS_FOR_EVER)
    first = nursery.born()
    nursery.wait(silent_s)
    assert nursery.children.pids() == [first]
    assert nursery.end() is end


@pytest.mark.parametrize(
    ("silent_s", "end"), [(SILENT_S, signal.SIGTERM), (SILENT_S + 1, signal.SIGKILL)]
)
def test_a_child_that_has_spoken_may_not_be_silent_for_so_long(
    nursery: Nursery, silent_s: float, end: signal.Signals
) -> None:
    nursery.grow(SPEAKS_ONCE + IMPORTS_FOR_EVER)
    nursery.born()
    nursery.children.turn(60)  # until it is heard
    nursery.wait(silent_s)
    assert nursery.end() is end


def test_a_child_that_keeps_dying_young_comes_back_less_and_less_often(
    nursery: Nursery,
) -> None:
    nursery.grow(DIES)
    nursery.born()
    gaps = [nursery.gap() for _ in range(9)]
    assert gaps == pytest.approx([0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10], abs=0.11)


def test_after_a_good_life_a_child_comes_back_at_once(nursery: Nursery) -> None:
    nursery.grow(DIES)
    nursery.born()
    for _ in range(3):
        nursery.gap()
    nursery.grow(IMPORTS_FOR_EVER)
    nursery.gap()
    nursery.wait(4)
    nursery.grow(DIES)
    assert nursery.end() is signal.SIGTERM
    assert [nursery.gap() for _ in range(3)] == pytest.approx([0, 0.2, 0.4], abs=0.11)


def test_a_spare_is_started_as_soon_as_everybody_works(nursery: Nursery) -> None:
    before = nursery.alive()
    nursery.keep(spare=True)
    nursery.grow(CONSUMES + IMPORTS_FOR_EVER)
    nursery.born()
    nursery.children.turn(60)
    assert nursery.alive() - before == 2


def test_a_worker_that_begins_has_the_processor_to_itself_for_a_while(nursery: Nursery) -> None:
    before = nursery.alive()
    nursery.keep(spare=True)
    nursery.grow(SPEAKS_ONCE + IMPORTS_FOR_EVER)
    nursery.born()
    nursery.children.turn(60)
    nursery.wait(5)
    assert nursery.alive() - before == 1
    nursery.wait(0.1)
    assert nursery.alive() - before == 2
