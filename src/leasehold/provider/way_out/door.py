"""
The door: lets connections through to what an allow-list names, and serves for a sandbox's life.

It speaks the protocol of an HTTP proxy: CONNECT, and plain requests with a whole URL. Whoever
keeps it accepts on the loopback of a sandbox that has no other network, so what comes in is of
the sandbox alone; what it connects to is reached from the host, after `allowing` let it
through. Names are looked up here, after they were found on the list, so that not even a lookup
leaves the sandbox for a name that is not.

What speaks to commands has no right on this host: root's takes a user of its own, and nobody
keeps a descriptor but sockets and what tells of the sandbox's end.
"""

import ctypes
import os
import re
import resource
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from time import monotonic
from typing import Final, NoReturn

from . import allowing

PORT: Final = 3128
UID: Final = 64742
"""Who runs it, if root starts it; any number that no image, command or guard uses."""

MOST: Final = 128
"""Connections at once; the sandbox's own business if it uses them up."""

CANNOT: Final = 4
_NO_NEW_PRIVILEGES: Final = 38
_HEAD_BYTES: Final = 32 * 1024
_HEAD_S: Final = 30.0
_CONNECT_S: Final = 20.0
_CHUNK: Final = 64 * 1024
_ODD: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINE: Final = re.compile(r"([A-Z]{1,20}) (\S{1,8000}) (HTTP/1\.[01])")
_URL: Final = re.compile(r"http://([^/?#@\s]+)(/[^#\s]*|\?[^#\s]*)?", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")


class BadRequestError(Exception):
    """It is not what a proxy is asked."""


# ---- the door: one connection --------------------------------------------------------------


class Door:
    """Lets connections through, each by a thread of its own."""

    def __init__(self, entries: Sequence[allowing.Entry]) -> None:
        self._entries = entries
        self._free = threading.BoundedSemaphore(MOST)

    def take(self, client: socket.socket) -> None:
        if not self._free.acquire(blocking=False):
            client.close()
            return
        try:
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()
        except RuntimeError:
            client.close()
            self._free.release()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                self._answer(client)
        finally:
            self._free.release()

    def _answer(self, client: socket.socket) -> None:
        try:
            head, rest = _head(client)
            host, port, first = _wanted(head)
        except BadRequestError as error:
            _say(client, "400 Bad Request", str(error))
            return
        try:
            found = self._through(host, port)
        except allowing.RefusedError as error:
            _say(client, "403 Forbidden", f"{host}:{port} {error}")
            return
        except OSError as error:
            _say(client, "502 Bad Gateway", f"{host}:{port}: {error.strerror or error}")
            return
        with found as server:
            if first:
                server.sendall(first)
            else:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            server.sendall(rest)
            _relay(client, server)

    def _through(self, host: str, port: int) -> socket.socket:
        """Connect to what the list allows of this host; raises `RefusedError`, `OSError`."""
        address = allowing.literal(host)
        if address is not None:
            found = allowing.check_addresses(self._entries, [address], port, of_name=False)
        else:
            name = allowing.check_name(self._entries, host, port)
            answers = socket.getaddrinfo(name.encode(), port, type=socket.SOCK_STREAM)
            # A scope (fe80::1%eth0) is none of what may be reached.
            numbers = [str(where[0]) for *_, where in answers if "%" not in str(where[0])]
            looked_up = dict.fromkeys(ip_address(one) for one in numbers)
            found = allowing.check_addresses(self._entries, looked_up, port, of_name=True)
        failure: OSError = OSError("no address")
        for one in found:
            try:
                return socket.create_connection((str(one), port), timeout=_CONNECT_S)
            except OSError as error:
                failure = error
        raise failure


def _head(client: socket.socket) -> tuple[str, bytes]:
    """Read the head of a request; return it and what came after it."""
    data, until = b"", monotonic() + _HEAD_S
    while b"\r\n\r\n" not in data:
        client.settimeout(max(0.01, until - monotonic()))
        part = client.recv(_CHUNK)
        data += part
        if not part or len(data) > _HEAD_BYTES:
            raise BadRequestError("the head of the request has no end")
    head, _, rest = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    # A line's end that only some servers see would hide a field.
    if _ODD.search(text.replace("\r\n", "")):
        raise BadRequestError("control characters")
    return text, rest


def _wanted(head: str) -> tuple[str, int, bytes]:
    """Return host, port and what the server gets first; nothing for a tunnel."""
    line, *fields = head.split("\r\n")
    asked = _LINE.fullmatch(line)
    if asked is None:
        raise BadRequestError("not a request to a proxy")
    method, target, version = asked.groups()
    if method == "CONNECT":
        host, port = _split(target, None)
        return host, port, b""
    url = _URL.fullmatch(target)
    if url is None:
        raise BadRequestError("only CONNECT, and requests with a whole http:// URL")
    host, port = _split(url[1], 80)
    path = url[2] or "/"
    own = ("host", "connection", "proxy-connection", "keep-alive", "proxy-authorization")
    kept = [one for one in fields if one.partition(":")[0].strip().lower() not in own]
    # One request per connection, and the host of the URL: what was looked at is what is asked.
    lines = [
        f"{method} {path if path.startswith('/') else f'/{path}'} {version}",
        f"Host: {url[1]}",
        *kept,
        "Connection: close",
    ]
    return host, port, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _split(text: str, default: int | None) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2]) if found and found[2] else default
    if found is None or port is None or not 0 < port < 2**16:
        raise BadRequestError("not a host with a port")
    return found[1], port


def _say(client: socket.socket, status: str, text: str) -> None:
    body = f"leasehold: {text}\n".encode("ascii", errors="replace")
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    client.sendall(head.encode() + body)


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until both have said their last."""
    for one in (client, server):
        one.settimeout(None)
    back = threading.Thread(target=_carry, args=(server, client), daemon=True)
    back.start()
    _carry(client, server)
    back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # Whoever broke off is not waited for: neither way goes on.
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


# ---- keeping it ----------------------------------------------------------------------------


def ready(lines: str) -> Door:
    """
    Return a door for a list's entries, one a line.

    Raises:
        ValueError: A line is no entry.
    """
    # What a look-up needs is loaded now: later it may not be readable for us.
    socket.getaddrinfo("127.0.0.1", PORT)
    return Door([allowing.parse(line) for line in lines.split("\n") if line])


def drop() -> None:
    """Have no right on this host from now on; who is not root keeps its name."""
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    if ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        os._exit(CANNOT)


def keep(listener: socket.socket, end: int, door: Door) -> NoReturn:
    """Serve until the sandbox ends, which makes `end` readable."""
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(listener, select.POLLIN)
    listener.settimeout(0)
    while end not in dict(poll.poll()):
        with suppress(OSError):
            client, _ = listener.accept()
            client.settimeout(None)
            door.take(client)
    # Connections end with their sandbox.
    os._exit(0)
