"""A way out of a container that leads to what is allowed, and nowhere else."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from engines.box import TTL, Box, budget, until
from leasehold.provider import ReleaseMode
from leasehold.provider.way_out.door import PORT, UID
from leasehold_docker import egress
from leasehold_docker.layout import Directory

pytestmark = pytest.mark.timeout(180)

_PROXY: Final = f"http://127.0.0.1:{PORT}"


class Site:
    """A server on the host's loopback that tells what it was asked."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, suppress(OSError):
                    client.settimeout(5)
                    data = b""
                    while b"\r\n\r\n" not in data and b"ping\n" not in data:
                        data += client.recv(4096)
                    self.asked.append(data)
                    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhere\n")


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.listener.close()


def open_box(make_box: Callable[..., Box], *allow: str, **more: object) -> Box:
    return make_box(network="allow_list", allow=list(allow), **more)


def fetch(box: Box, url: str) -> str:
    """Fetch as a command would that knows only its variables."""
    return box.run(f"wget -q -O - {url} 2>&1")[1]


def asked(box: Box, *lines: str) -> str:
    """Send lines to the gatekeeper itself; return what it answers."""
    text = "".join(f"{line}\\r\\n" for line in (*lines, ""))
    return box.run(f"printf '{text}' | nc -w 5 127.0.0.1 {PORT}")[1]


def test_what_is_allowed_is_reached_by_the_usual_variables(
    make_box: Callable[..., Box], site: Site
) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    assert fetch(box, f"http://127.0.0.1:{site.port}/a?b=c") == "here\n"
    assert site.asked[0].startswith(b"GET /a?b=c HTTP/1.")
    assert f"\r\nHost: 127.0.0.1:{site.port}\r\n".encode() in site.asked[0]
    _, said = box.run("env")
    assert f"HTTPS_PROXY={_PROXY}\n" in said
    assert f"http_proxy={_PROXY}\n" in said


def test_a_tunnel_leads_to_what_is_allowed(make_box: Callable[..., Box], site: Site) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    _, said = box.run(
        f"(printf 'CONNECT 127.0.0.1:{site.port} HTTP/1.1\\r\\n\\r\\n'; sleep 1; echo ping)"
        f" | nc -w 5 127.0.0.1 {PORT}"
    )
    assert said.startswith("HTTP/1.1 200 ")
    assert said.endswith("here\n")


def test_nothing_else_leads_out(make_box: Callable[..., Box], site: Site) -> None:
    other = Site()
    box = open_box(make_box, f"127.0.0.1:{site.port}", "*.allowed.test:443")
    # By the kernel: there is no interface, no route and no resolver that answers.
    _, said = box.run(
        "ls /sys/class/net; cat /proc/net/route /proc/net/ipv6_route | grep -v lo$; "
        "unset http_proxy HTTP_PROXY; "
        f"wget -q -T 3 -O - http://127.0.0.1:{site.port}/ 2>&1; "
        "nc -w 3 192.0.2.1 80 2>&1; "
        "timeout 3 nslookup allowed.test 2>&1; true"
    )
    assert said.split()[0] == "lo"
    assert "eth0" not in said
    assert "here" not in said
    # By the gatekeeper: other ports, other addresses, other names, odd spellings of them.
    for where in (
        f"127.0.0.1:{other.port}",
        f"127.1:{site.port}",
        f"2130706433:{site.port}",
        f"0x7f000001:{site.port}",
        f"0177.0.0.1:{site.port}",
        f"127.0.0.2:{site.port}",
        f"[::1]:{site.port}",
        f"[::ffff:127.0.0.2]:{site.port}",
        f"localhost:{site.port}",
        "169.254.169.254:80",
        "allowed.test:443",
        "allowed.test.evil.test:443",
        "evilallowed.test:443",
    ):
        answer = asked(box, f"CONNECT {where} HTTP/1.1")
        assert answer.startswith("HTTP/1.1 403 "), (where, answer)
    assert not site.asked
    assert not other.asked
    other.listener.close()


def test_a_name_does_not_open_the_hosts_own_network(
    make_box: Callable[..., Box], site: Site
) -> None:
    # The name is allowed, and whoever answers for it says: 127.0.0.1.
    box = open_box(make_box, f"localhost:{site.port}")
    answer = asked(box, f"CONNECT localhost:{site.port} HTTP/1.1")
    assert answer.startswith("HTTP/1.1 403 ")
    assert "not public" in answer
    assert not site.asked


def test_a_name_may_lead_to_an_address_that_is_allowed_too(
    make_box: Callable[..., Box], site: Site
) -> None:
    box = open_box(make_box, f"LOCALHOST:{site.port}", f"127.0.0.0/8:{site.port}")
    assert fetch(box, f"http://localhost.:{site.port}/") == "here\n"


@pytest.mark.parametrize(
    "line",
    ["GET / HTTP/1.1", "CONNECT nowhere HTTP/1.1", "GET ftp://127.0.0.1/ HTTP/1.1",
     "GET http://u@127.0.0.1/ HTTP/1.1", "CONNECT 127.0.0.1:99999 HTTP/1.1", "rubbish"],
)  # fmt: skip
def test_what_no_proxy_is_asked_is_refused(make_box: Callable[..., Box], line: str) -> None:
    box = open_box(make_box, "127.0.0.1:9")
    assert asked(box, line).startswith("HTTP/1.1 400 ")


def test_a_hidden_field_is_refused(make_box: Callable[..., Box], site: Site) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    url = f"http://127.0.0.1:{site.port}/"
    hidden = asked(box, f"GET {url} HTTP/1.1", "X: a\\nHost: other.test")
    assert hidden.startswith("HTTP/1.1 400 ")
    assert not site.asked


# ---- its life -----------------------------------------------------------------------------


def keeper(box: Box) -> int:
    """Return the number of the gatekeeper's process."""
    record = Path(Directory(str(box.root), box.directory.name[3:]).gatekeeper_file)
    return int(record.read_text().split("\n")[1])


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_it_has_no_right_on_the_host(make_box: Callable[..., Box]) -> None:
    pid = keeper(open_box(make_box, "127.0.0.1:9"))
    text = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(UID)] * 4
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
    assert facts["Groups"].split() == []


def test_it_stays_one_however_often_it_is_asked_for(make_box: Callable[..., Box]) -> None:
    box = open_box(make_box, "127.0.0.1:9")
    first = keeper(box)
    box.acquire(resume=True)
    box.provider.renew(box.target, fence=1, ttl=TTL, budget=budget())
    assert keeper(box) == first
    assert alive(first)


def test_a_sandbox_without_it_is_shut_until_a_beat_comes(
    make_box: Callable[..., Box], site: Site
) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    first = keeper(box)
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first), "the gatekeeper is gone")
    assert "here" not in fetch(box, f"http://127.0.0.1:{site.port}/")
    assert not site.asked
    box.provider.renew(box.target, fence=1, ttl=TTL, budget=budget())
    assert fetch(box, f"http://127.0.0.1:{site.port}/") == "here\n"


def test_it_ends_with_its_container_and_comes_back_with_it(
    make_box: Callable[..., Box], site: Site
) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    first = keeper(box)
    box.release(ReleaseMode.SUSPEND)
    until(lambda: not alive(first), "the gatekeeper is gone")
    box.fence += 1
    box.acquire(resume=True)
    assert fetch(box, f"http://127.0.0.1:{site.port}/") == "here\n"
    second = keeper(box)
    box.release()
    assert not alive(second)


def test_one_that_was_stopped_does_not_outlive_a_destroy(make_box: Callable[..., Box]) -> None:
    box = open_box(make_box, "127.0.0.1:9")
    pid = keeper(box)
    os.kill(pid, signal.SIGSTOP)
    box.release()
    assert not alive(pid)


def test_one_that_was_stopped_is_replaced_after_a_suspension(
    make_box: Callable[..., Box], site: Site
) -> None:
    box = open_box(make_box, f"127.0.0.1:{site.port}")
    first = keeper(box)
    os.kill(first, signal.SIGSTOP)
    box.release(ReleaseMode.SUSPEND)
    box.fence += 1
    box.acquire(resume=True)
    assert not alive(first)
    assert fetch(box, f"http://127.0.0.1:{site.port}/") == "here\n"


def test_it_ends_with_a_sandbox_that_nobody_renews(make_box: Callable[..., Box]) -> None:
    box = open_box(make_box, "127.0.0.1:9")
    pid = keeper(box)
    box.provider.renew(box.target, fence=1, ttl=timedelta(seconds=1), budget=budget())
    api = box.engine.api()
    api.kill(box.name, signal="USR1")
    api.close()
    until(lambda: not alive(pid), "the gatekeeper is gone")


def test_who_finds_a_removed_sandbox_starts_nobody(make_box: Callable[..., Box]) -> None:
    box = open_box(make_box, "127.0.0.1:9")
    directory = Directory(str(box.root), box.directory.name[3:])
    box.release()
    egress.end(directory, budget())
    assert not box.directory.exists()
