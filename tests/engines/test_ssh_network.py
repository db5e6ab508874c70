"""A target that is cut off: its cable is pulled and nobody is told."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.ssh_lease import Leased, at_last, budget
from engines.sshd import Sshd, required, serving
from leasehold.provider import (
    DeadlineExceededError,
    ExecutionState,
    ProviderError,
    SandboxState,
    StartOutcome,
    UnavailableError,
)
from leasehold_ssh.provider import SshProvider
from living import wait_for

OURS, THEIRS = "198.51.100.1", "198.51.100.2"
PORT = 22
PREFIX = "leasehold-ssh-"


def sweep() -> None:
    """Remove the namespaces of test processes that were killed; their cables go with them."""
    for path in Path("/run/netns").glob(f"{PREFIX}*"):
        if not Path("/proc", path.name.removeprefix(PREFIX)).exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


class Cable:
    """A network namespace whose only way to us is a veth pair; our end can be taken down."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self._end = f"lhs{os.getpid()}"[:13]

    def plug(self) -> None:
        far = f"{self._end}p"
        ip("netns", "add", self.name)
        ip("link", "add", self._end, "type", "veth", "peer", "name", far, "netns", self.name)
        ip("addr", "add", f"{OURS}/24", "dev", self._end)
        ip("link", "set", self._end, "up")
        ip("-n", self.name, "addr", "add", f"{THEIRS}/24", "dev", far)
        ip("-n", self.name, "link", "set", far, "up")

    def pull(self) -> None:
        ip("link", "set", self._end, "down")

    def mend(self) -> None:
        ip("link", "set", self._end, "up")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self._end], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def cable() -> Iterator[Cable]:
    sweep()
    cable = Cable()
    try:
        cable.plug()
    except (PermissionError, FileNotFoundError) as error:
        cable.remove()
        required(f"a network namespace ({error})")
    yield cable
    cable.remove()


@pytest.fixture
def server(cable: Cable, tmp_path: Path) -> Iterator[Sshd]:
    inside = ["ip", "netns", "exec", cable.name]
    with serving(tmp_path / "sshd", address=THEIRS, port=PORT, inside=inside) as server:
        yield server


@pytest.fixture
def provider() -> Iterator[SshProvider]:
    provider = SshProvider({})
    yield provider
    provider.close()


def test_a_target_that_is_cut_off_is_unavailable_and_then_goes_on(
    provider: SshProvider, server: Sshd, cable: Cable, tmp_path: Path
) -> None:
    leased = Leased(provider, server.config(tmp_path / "root"), "lease-1")
    work = Path(leased.sandbox.remote_cwd)
    leased.shell(
        "x1", "echo x >>starts; echo before; until [ -e go ]; do sleep 0.05; done; echo after"
    )
    wait_for("its first word", lambda: leased.poll("x1").stdout == b"before\n")
    cable.pull()
    # A poll gives up in time for its beat and knows nothing: that is no state of the command.
    polled = leased.poll("x1", len("before\n"))
    assert polled.state is None
    assert isinstance(polled.error, DeadlineExceededError | UnavailableError)
    # A longer call finds out that the connection is dead, and that there is no other.
    with pytest.raises(UnavailableError):
        provider.inspect(leased.target, budget=budget(60))
    with pytest.raises(UnavailableError):
        leased.shell("x2", "true")
    (work / "go").touch()
    cable.mend()
    assert at_last(lambda: leased.ended("x1"), ProviderError).code == 0
    assert leased.output("x1") == b"before\nafter\n"
    assert leased.shell("x1", "echo x >>starts").outcome is StartOutcome.ADOPTED
    assert (work / "starts").read_text() == "x\n"
    assert provider.inspect(leased.target, budget=budget()).state is SandboxState.READY
    leased.destroy()


def test_a_short_cut_is_not_noticed(
    provider: SshProvider, server: Sshd, cable: Cable, tmp_path: Path
) -> None:
    """The connection is kept: TCP sends again what was lost."""
    leased = Leased(provider, server.config(tmp_path / "root"), "lease-1")
    leased.shell("x1", "sleep 60")
    leased.running("x1")
    cable.pull()
    cable.mend()
    assert leased.poll("x1").state is ExecutionState.RUNNING
    assert (server.home / "log").read_text().count("Accepted publickey") == 1
    leased.destroy()
