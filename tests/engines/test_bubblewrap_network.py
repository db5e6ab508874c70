"""A way out of bubblewrap that leads to what is allowed, nowhere else, and ends in time."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from bubblewrap_world import Fenced, provider, require_bubblewrap
from leasehold.provider import ExecutionState, ReleaseMode, SettledState
from leasehold.provider.way_out.door import PORT, UID
from leasehold_local import processes
from local_world import budget, until

pytestmark = pytest.mark.timeout(180)

FETCH = (
    "fetch() { exec 3<>/dev/tcp/127.0.0.1/3128 && printf '%s HTTP/1.0\\r\\n\\r\\n' \"$1\" >&3"
    " && cat <&3; exec 3>&-; }; "
)


class Site:
    """A server on the host's loopback that tells what it was asked."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, suppress(OSError):
                    client.settimeout(5)
                    self.asked.append(client.recv(4096))
                    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhere\n")


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.listener.close()


@pytest.fixture
def world(tmp_path: Path, site: Site) -> Iterator[Fenced]:
    require_bubblewrap()
    found = Fenced(tmp_path / "root", provider(tmp_path / "root"))
    found.config = {"network": "allow_list", "allow": [f"127.0.0.1:{site.port}"]}
    yield found
    found.end()


def bash(world: Fenced, name: str, script: str) -> str:
    done = world.run(name, "bash", "-c", FETCH + script)
    return (done.stdout + done.stderr).decode()


def waiting(world: Fenced, name: str = "one", ask: str = "") -> tuple[int, int]:
    """Start a command that asks when it is told to; return its supervisor and gatekeeper."""
    script = f"echo ready; while ! [ -e go ]; do sleep 0.05; done; {ask}"
    world.start(name, "bash", "-c", FETCH + script)
    world.wait_output(name, b"ready")
    supervisor = int(world.go(name)[1])
    (keeper,) = keepers(supervisor)
    return supervisor, keeper


def keepers(supervisor: int) -> list[int]:
    found = []
    for pid, seen in processes.table().items():
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if seen.parent == supervisor and b"way_out.handed" in line:
                found.append(pid)
    return found


def lives(pid: int) -> bool:
    return pid in processes.table()


def go_on(world: Fenced) -> None:
    (world.path / "work/go").touch()


def test_a_command_that_knows_its_variables_gets_out(world: Fenced, site: Site) -> None:
    script = (
        "import os, urllib.request as u;"
        "h = u.ProxyHandler({'http': os.environ['http_proxy']});"
        f"print(u.build_opener(h).open('{site.url}').read().decode())"
    )
    assert "here" in world.said(f'NO_PROXY= no_proxy= /usr/bin/python3 -c "{script}"')
    assert site.asked[0].startswith(b"GET / HTTP/1.")


def test_the_commands_own_variables_win(world: Fenced) -> None:
    said = world.said("env", env={"http_proxy": "http://mine.test/"})
    assert "http_proxy=http://mine.test/\n" in said
    assert f"https_proxy=http://127.0.0.1:{PORT}\n" in said


def test_without_a_list_nobody_listens(world: Fenced, site: Site) -> None:
    world.config = {}
    assert "refused" in bash(world, "shut", f"fetch 'GET {site.url}'")
    assert "proxy" not in world.said("env").lower()


def test_the_kernel_keeps_everything_else_shut(world: Fenced, site: Site) -> None:
    other = Site()
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0leasehold-test-{os.getpid()}")
    abstract.listen()
    probe = f"""
import socket as s, struct
def attempt(name, f):
    try: print(name, 'REACHED', f())
    except OSError as e: print(name, type(e).__name__)
attempt('host', lambda: s.create_connection(('127.0.0.1', {site.port}), 3))
attempt('other', lambda: s.create_connection(('127.0.0.1', {other.port}), 3))
attempt('out', lambda: s.create_connection(('192.0.2.1', 80), 3))
attempt('six', lambda: s.create_connection(('2001:db8::1', 80), 3))
attempt('udp', lambda: s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53)))
attempt('raw', lambda: s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP))
attempt('packet', lambda: s.socket(s.AF_PACKET, s.SOCK_RAW))
attempt('vsock', lambda: s.socket(s.AF_VSOCK, s.SOCK_STREAM))
attempt('name', lambda: s.getaddrinfo('a.test', 80))
u = s.socket(s.AF_UNIX)
attempt('abstract', lambda: u.connect('\\0leasehold-test-{os.getpid()}'))
t = s.socket(); t.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)
attempt('steal', lambda: (t.bind(('127.0.0.1', {PORT})), t.listen()))
"""
    said = world.run("probe", "/usr/bin/python3", "-c", probe)
    text = (said.stdout + said.stderr).decode()
    assert "REACHED" not in text
    assert text.count("\n") == 11, text
    assert not site.asked
    assert not other.asked
    abstract.close()
    other.listener.close()


def test_the_gatekeeper_keeps_everything_else_shut(world: Fenced, site: Site) -> None:
    other = Site()
    world.config["allow"] = [
        f"127.0.0.1:{site.port}", f"localhost:{other.port}", "*.allowed.test:443",
    ]  # fmt: skip
    for number, where in enumerate((
        f"127.0.0.1:{other.port}", f"127.1:{site.port}", f"0x7f000001:{site.port}",
        f"127.0.0.2:{site.port}", f"[::1]:{site.port}", f"[::ffff:127.0.0.2]:{site.port}",
        "169.254.169.254:80", "allowed.test:443", "evilallowed.test:443",
    )):  # fmt: skip
        answer = bash(world, f"refused-{number}", f"fetch 'CONNECT {where}'")
        assert answer.startswith("HTTP/1.1 403 "), (where, answer)
    # A name that is allowed, and whoever answers for it says: the host itself.
    answer = bash(world, "rebound", f"fetch 'CONNECT localhost:{other.port}'")
    assert answer.startswith("HTTP/1.1 403 ")
    assert "not public" in answer
    assert bash(world, "rubbish", "fetch rubbish").startswith("HTTP/1.1 400 ")
    assert not site.asked
    assert not other.asked
    other.listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_roots_gatekeeper_has_no_right_on_the_host(world: Fenced) -> None:
    _, pid = waiting(world)
    text = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(UID)] * 4
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
    assert facts["Groups"].split() == []
    held = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert {one for one in held if not one.startswith(("socket:", "pipe:"))} == {"/dev/null"}
    assert Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()


# ---- its life -----------------------------------------------------------------------------


def test_it_ends_with_its_command(world: Fenced) -> None:
    _, keeper = waiting(world)
    go_on(world)
    world.wait("one")
    assert not lives(keeper)


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_a_command_that_is_cancelled(world: Fenced, *, stopped: bool) -> None:
    _, keeper = waiting(world)
    if stopped:
        os.kill(keeper, signal.SIGSTOP)
    world.cancel("one")
    assert not lives(keeper)


def test_it_dies_with_its_supervisor(world: Fenced) -> None:
    supervisor, keeper = waiting(world)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not lives(keeper), "the gatekeeper is gone")
    assert world.settle("one").state is SettledState.LOST


def test_it_ends_when_the_sandbox_is_killed_around_the_command(world: Fenced) -> None:
    supervisor, keeper = waiting(world)
    table = processes.table()
    for pid in processes.below([supervisor], table) - {keeper}:
        # The first that dies takes the others with it.
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n":
                os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(keeper), "the gatekeeper is gone")
    until(lambda: world.look("one").state is ExecutionState.EXITED, "the end is told")


@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_it_does_not_outlive_a_release(world: Fenced, mode: ReleaseMode) -> None:
    _, keeper = waiting(world)
    world.provider.release(world.meant(), fence=1, mode=mode, budget=budget())
    if mode is ReleaseMode.KEEP:
        world.cancel("one")
    until(lambda: not lives(keeper), "the gatekeeper is gone")


def test_it_ends_with_a_sandbox_that_nobody_renews(world: Fenced) -> None:
    world.acquire(timedelta(seconds=2))
    _, keeper = waiting(world)
    until(lambda: not lives(keeper), "the gatekeeper is gone")


def test_another_one_takes_its_place(world: Fenced, site: Site) -> None:
    supervisor, first = waiting(world, ask=f"fetch 'GET {site.url}'")
    os.kill(first, signal.SIGKILL)
    # Whoever asks meanwhile waits.
    go_on(world)
    assert world.wait("one").stdout.endswith(b"here\n")
    assert len(site.asked) == 1
    assert not keepers(supervisor)


def test_when_too_many_have_died_it_is_shut(world: Fenced, site: Site) -> None:
    supervisor, _ = waiting(world, ask=f"fetch 'GET {site.url}'")
    killed: set[int] = set()

    def all_gone() -> bool:
        for pid in keepers(supervisor):
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return len(killed) == 20 and not keepers(supervisor)

    until(all_gone, "the last of them is dead")
    go_on(world)
    assert b"refused" in world.wait("one").stderr
    assert not site.asked


def test_where_there_can_be_none_nothing_is_started(
    world: Fenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.config, listed = {}, world.config
    assert world.said("echo the zygote lives") == "the zygote lives\n"
    world.config = listed
    world.acquire()
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    world.start("one", "touch", "started")
    until(lambda: world.look("one").state is ExecutionState.UNCLEAR, "there is no record")
    assert world.settle("one").state is SettledState.LOST
    assert b"no way out" in world.look("one").stderr
    assert not (world.path / "work/started").exists()


def test_the_death_of_the_worker_does_not_shut_it(world: Fenced, site: Site) -> None:
    world.acquire()
    pid = os.fork()
    if pid == 0:
        try:
            waiting(world, ask=f"fetch 'GET {site.url}'")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    heir = Fenced(world.root, provider(world.root), world.config, 2, world.target)
    go_on(heir)
    assert heir.wait("one").stdout.endswith(b"here\n")
    heir.provider.close()


def test_each_command_of_a_reused_sandbox_has_its_own(world: Fenced, site: Site) -> None:
    supervisor, keeper = waiting(world, "one")
    other, second = waiting(world, "two", ask=f"fetch 'GET {site.url}'")
    assert (supervisor, keeper) != (other, second)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not lives(keeper), "the first is gone")
    go_on(world)
    assert world.wait("two").stdout.endswith(b"here\n")
    world.provider.release(world.meant(), fence=1, mode=ReleaseMode.SUSPEND, budget=budget())
    sandbox = world.provider.acquire(
        world.meant().lease, world.config, known=world.meant().handle,
        ttl=timedelta(minutes=1), fence=2, budget=budget(),
    )  # fmt: skip
    assert sandbox.handle == world.meant().handle
    world.fence = 2
    assert bash(world, "three", f"fetch 'GET {site.url}'").endswith("here\n")
