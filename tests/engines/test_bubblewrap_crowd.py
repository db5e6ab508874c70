"""Two hundred sandboxes at once on one worker: each its own, and afterwards nothing is left."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from bubblewrap_world import provider, require_bubblewrap
from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    Polled,
    PollItem,
    ReleaseMode,
    Target,
)
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold_bubblewrap.provider import BubblewrapProvider
from local_world import DEPLOYMENT, TTL, lease, until

pytestmark = pytest.mark.timeout(240)

MANY: Final = 200
_THREADS: Final = 8
_LIMIT_S: Final = 120.0


class Crowd:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.provider: BubblewrapProvider = provider(root)
        self.ended: set[str] = set()
        self.all_ended = threading.Event()
        self.provider.watch(self._told)
        self.targets: list[Target] = []

    def _told(self, name: str) -> None:
        self.ended.add(name)
        if len(self.ended) == MANY:
            self.all_ended.set()

    def acquire(self, number: int) -> Target:
        ref = lease(f"lease-{number}", number)
        sandbox = self.provider.acquire(
            ref, {}, known=None, ttl=TTL, fence=1, budget=Budget(_LIMIT_S)
        )
        return Target(lease=ref, handle=sandbox.handle, config={})

    def start(self, target: Target) -> None:
        number = target.lease.number
        script = (
            f"echo {number} >mine; echo up; until [ -e go ]; do sleep 0.5; done; "
            f"cat mine; ls; exit {number % 100}"
        )
        self.provider.start(
            target, fence=1, execution_id=f"x{number}",
            command=Command(argv=("sh", "-c", script)), budget=Budget(_LIMIT_S),
        )  # fmt: skip

    def let_go(self, target: Target) -> None:
        path = Path(self.provider._sandboxes.path(target.lease.id)) / "work/go"
        path.touch()

    def look(self) -> list[Polled]:
        """Look at all of them, in one batch, as a beat does."""
        items = [
            PollItem(target=one, execution_id=f"x{one.lease.number}", handle={})
            for one in self.targets
        ]
        return list(self.provider.poll(items, limit_bytes=1000, budget=Budget(_LIMIT_S)))

    def release(self, target: Target) -> None:
        self.provider.release(
            target, fence=2, mode=ReleaseMode.DESTROY, budget=Budget(_LIMIT_S)
        )

    def owned(self) -> list[str]:
        listed = self.provider.list_owned(DEPLOYMENT, config={}, budget=Budget(_LIMIT_S))
        return [one.lease_id for one in listed]


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    require_bubblewrap()
    one = Crowd(tmp_path / "root")
    yield one
    for target in one.targets:
        one.release(target)
    one.provider.close()
    until(lambda: not processes_below(one.root), "no process is left")
    assert names_below(one.root) == []
    for base in one.provider._ground.bases():
        assert not Path(base).exists(), "no cgroup of ours is left"


def test_two_hundred_stand_at_once_and_each_is_its_own(crowd: Crowd) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:

        def each(call: Callable[[Any], Any], items: Any) -> list[Any]:
            return list(pool.map(call, items))

        crowd.targets = each(crowd.acquire, range(1, MANY + 1))
        each(crowd.start, crowd.targets)
        patience = Budget(_LIMIT_S)
        seen = crowd.look()
        while not all(one.stdout == b"up\n" for one in seen):
            patience.wait(0.1)
            seen = crowd.look()
        assert {one.state for one in seen} == {ExecutionState.RUNNING}
        assert len(crowd.owned()) == MANY
        each(crowd.let_go, crowd.targets)
        assert crowd.all_ended.wait(_LIMIT_S), f"{len(crowd.ended)} ends were told"
        for target, one in zip(crowd.targets, crowd.look(), strict=True):
            number = target.lease.number
            assert one.exit is not None
            assert one.exit.code == number % 100
            assert one.stdout == f"up\n{number}\ngo\nmine\n".encode()
        each(crowd.release, crowd.targets)
    assert crowd.owned() == []
