"""
Checks: a sandbox with an allow-list reaches what is named, and nothing else.

For providers whose sandboxes are on this host, where the suite can be what is reached: a server
on the host's own loopback, which no sandbox reaches by itself. A provider that calls its fields
otherwise than `network` and `allow`, or tells the way out otherwise than by `http_proxy`, needs
tests of its own.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from leasehold.provider.conformance.catalogue import allow_list, check, posix
from leasehold.provider.conformance.harness import Case, Done, must
from leasehold.provider.contract import Network

_ANSWER: Final = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhere\n"
_ASK: Final = r"""
ask() {
  proxy=${http_proxy#http://}; proxy=${proxy%/}
  dial "${proxy%:*}" "${proxy##*:}" "$1"
}
dial() {
  if command -v bash >/dev/null; then
    bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf "$3\r\n\r\n" >&3 && cat <&3' - "$@" 2>&1
  else
    printf "$3\r\n\r\n" | nc -w 5 "$1" "$2" 2>&1
  fi
}
"""


class _Site:
    """A server that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError):
                    client.settimeout(5)
                    self.asked.append(client.recv(4096))
                    client.sendall(_ANSWER)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def _sites(number: int) -> Iterator[list[_Site]]:
    sites = [_Site() for _ in range(number)]
    try:
        yield sites
    finally:
        for one in sites:
            one.close()


def _let_out(case: Case, *allow: str) -> Case:
    other = case.another()
    config: dict[str, Any] = {**case.harness.config, "network": "allow_list"}
    other.harness = replace(case.harness, config={**config, "allow": list(allow)})
    answer = other.provider.validate(other.harness.config, budget=case.budget())
    must(answer.ok, f"a list is refused: {answer.problems}")
    other.acquire()
    return other


def _said(case: Case, script: str) -> str:
    done: Done = case.run_command(case.shell(_ASK + script))
    return done.stdout.decode(errors="replace")


def _get(port: int) -> str:
    return f"GET http://127.0.0.1:{port}/a HTTP/1.0"


@check(posix, allow_list)
def what_an_allow_list_names_is_reached(case: Case) -> None:
    with _sites(1) as (site,):
        box = _let_out(case, f"127.0.0.1:{site.port}")
        said = _said(box, f"ask '{_get(site.port)}'")
        must(said.endswith("here\n"), f"the answer is {said!r}")
        must(site.asked[0].startswith(b"GET /a HTTP/1."), f"it was asked {site.asked}")


@check(posix, allow_list)
def what_an_allow_list_does_not_name_is_out_of_reach(case: Case) -> None:
    with _sites(2) as (site, other):
        box = _let_out(case, f"127.0.0.1:{site.port}", f"localhost:{other.port}")
        for where in (
            f"127.0.0.1:{other.port}",
            f"127.1:{site.port}",
            f"2130706433:{site.port}",
            f"[::ffff:127.0.0.2]:{site.port}",
            # The name is listed; where it leads is the host itself, which is not.
            f"localhost:{other.port}",
            "169.254.169.254:80",
        ):
            said = _said(box, f"ask 'CONNECT {where} HTTP/1.1'")
            must(said.startswith("HTTP/1.1 403 "), f"{where} is answered {said!r}")
        _said(box, f"dial 127.0.0.1 {site.port} '{_get(site.port)}'; true")
        must(not site.asked, "the host's loopback is reached past the list")
        must(not other.asked, "what is not listed is reached")
        lines = _said(box, "cat /proc/net/dev").splitlines()
        names = {line.split(":")[0].strip() for line in lines if ":" in line}
        must(names <= {"lo"}, f"there are interfaces: {sorted(names)}")


@check(posix, allow_list)
def a_way_out_stays_when_whoever_opened_it_is_gone(case: Case) -> None:
    with _sites(1) as (site,):
        box = _let_out(case, f"127.0.0.1:{site.port}")
        ask = f"ask '{_get(site.port)}'"
        wait = "while ! [ -e go-on ]; do sleep 0.1; done"
        first = box.again()
        first.start("asks-twice", first.shell(f"{_ASK}{ask}; {wait}; {ask}"))
        first.running("asks-twice", b"here")
        box.dismiss(first)
        box.run("touch", "go-on")
        said = box.wait("asks-twice").stdout
        must(said.count(b"here\n") == 2, f"it said {said!r}")  # noqa: PLR2004  both answers


@check(posix, allow_list)
def a_list_that_nobody_would_keep_is_refused(case: Case) -> None:
    base = dict(case.harness.config)
    for wrong in (
        {"network": "allow_list"},
        {"network": "allow_list", "allow": ["no port"]},
        {"network": str(Network.NONE), "allow": ["a.test:443"]},
    ):
        answer = case.provider.validate({**base, **wrong}, budget=case.budget())
        must(
            any(one.path.split(".")[0] == "allow" for one in answer.problems),
            f"{wrong} is taken: {answer}",
        )
