"""
Machines of a test: network namespaces on one wire, with APIs that listen in them.

`home` has three APIs of one deployment, each on an address of another kind; `away` has one of
a stranger's; `alone` has no network at all. Nothing of this leaves the machine.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from crash.harness import Cell, Cells
from leasehold.store import schema
from leasehold.store.database import Database
from services import MissingServiceError, missing

TESTS: Final = Path(__file__).parents[1]
HOME, AWAY, NOBODY = "10.77.0.1", "10.77.0.2", "10.77.0.99"
HOME6, AWAY6 = "fd77::1", "fd77::2"
EVERYWHERE, EVERYWHERE6, LOOPBACK = 8001, 8002, 8003
HOSTS: Final = f"127.0.0.1 localhost\n{AWAY} runs.test\n{HOME} api.test\n"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingServiceError(f"network namespaces: ip {' '.join(words)}: {done.stderr}")


def _check() -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        raise MissingServiceError("network namespaces need root, iproute2 and util-linux")


@dataclass
class Network:
    """The machines, and what is asked of a worker on one of them."""

    cell: Cell
    hosts: Path
    prefix: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def on(self, machine: str, *program: str) -> list[str]:
        """Return what runs a program on a machine, which knows names of its own."""
        mount = f'mount --bind "{self.hosts}" /etc/hosts && exec "$@"'
        return [
            *("nsenter", f"--net=/run/netns/{self.prefix}{machine}"),
            *("unshare", "--mount", "sh", "-c", mount, "sh", *program),
        ]

    def carry(
        self,
        machine: str,
        *,
        provider: str = "local",
        config: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Carry one run on a machine whose worker has these settings."""
        asked = {
            "cell": str(self.cell.path),
            "name": f"asker-{next(self._numbers)}",
            "provider": provider,
            "config": dict(config or {}),
            "settings": settings,
        }
        program = (sys.executable, str(TESTS / "networks" / "asker.py"), json.dumps(asked))
        done = subprocess.run(
            self.on(machine, *program),
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert told["status"] == "succeeded", told
        return told


@contextmanager
def _machines(prefix: str) -> Iterator[None]:
    names = [f"{prefix}{name}" for name in ("home", "away", "alone")]
    home, away, alone = names
    try:
        for name in names:
            _ip("netns", "add", name)
        wire = ("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", away)
        _ip("-n", home, *wire)
        for name, address, address6 in ((home, HOME, HOME6), (away, AWAY, AWAY6)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            _ip("-n", name, "address", "add", f"{address6}/64", "dev", "wire", "nodad")
            _ip("-n", name, "link", "set", "wire", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", alone, "link", "set", "lo", "down")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def _api(network: Network, machine: str, home: Path, host: str, port: int) -> Iterator[None]:
    program = (sys.executable, "-m", "leasehold", "api", "--host", host)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")}
    process = subprocess.Popen(
        network.on(machine, *program, "--port", str(port), "--json"),
        env=kept | {"LEASEHOLD_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["url"].endswith(f":{port}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    root = tmp_path_factory.mktemp("networks")
    prefix = f"lh{os.getpid()}-"
    with ExitStack() as stack:
        try:
            _check()
            stack.enter_context(_machines(prefix))
        except MissingServiceError as error:
            missing(error)
        cells = Cells(root / "cells")
        cells.prepare()
        stack.callback(cells.close)
        cell = cells.make()
        hosts = root / "hosts"
        hosts.write_text(HOSTS)
        found = Network(cell, hosts, prefix)
        stranger = root / "stranger"
        stranger.mkdir()
        database = Database(f"sqlite:///{stranger / 'leasehold.db'}")
        schema.upgrade(database)
        database.close()
        for machine, home, host, port in (
            ("home", cell.path, "0.0.0.0", EVERYWHERE),  # noqa: S104  of a namespace
            ("home", cell.path, "::", EVERYWHERE6),
            ("home", cell.path, "127.0.0.1", LOOPBACK),
            ("away", stranger, AWAY, EVERYWHERE),
        ):
            stack.enter_context(_api(found, machine, home, host, port))
        yield found
