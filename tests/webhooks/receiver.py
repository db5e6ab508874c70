"""A real receiver of webhooks that answers as it was told, one answer after the other."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

HANG: Final = "hang"
DRIP: Final = "drip"
FLOOD: Final = "flood"
FLOOD_BYTES: Final = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Got:
    """One request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    server_name: str | None = None


@dataclass
class Receiver:
    """What came, and what is still to be answered; then 200."""

    answers: list[Any] = field(default_factory=list)
    """A status, one with headers, or one of the ways to behave badly."""

    got: list[Got] = field(default_factory=list)
    flooded: int = 0
    """Bytes of an endless body that were taken off our hands."""

    leave: threading.Event = field(default_factory=threading.Event)
    address: tuple[str, int] = ("", 0)
    tls: bool = False
    server_names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        host, port = self.address
        return f"{'https' if self.tls else 'http'}://{host}:{port}/hook?of=us"

    @property
    def port(self) -> int:
        return self.address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.receiver.got.append(Got(self.path, dict(self.headers), body))
        answers = self.receiver.answers
        self._answer(answers.pop(0) if answers else 200)

    def do_GET(self) -> None:
        self.receiver.got.append(Got(self.path, dict(self.headers), b""))
        self._answer(200)

    def _answer(self, answer: Any) -> None:
        match answer:
            case "hang":
                self.receiver.leave.wait(30)
                self.close_connection = True
            case "drip":
                self._drip()
            case "flood":
                self._flood()
            case (status, headers):
                self._say(status, headers)
            case status:
                self._say(status, {})

    def _say(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "2")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"ok")

    def _drip(self) -> None:
        """Send a header that never ends, so that each read finds something."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            while not self.receiver.leave.wait(0.02):
                self.wfile.write(b"y")

    def _flood(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-length", str(FLOOD_BYTES))
        self.end_headers()
        with suppress(OSError):
            for _ in range(FLOOD_BYTES // 65536):
                self.wfile.write(b"x" * 65536)
                self.receiver.flooded += 65536

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving(
    *answers: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: tuple[str, str] | None = None,
) -> Iterator[Receiver]:
    """Serve until the block ends; `certificate` is a file of a chain and one of its key."""
    receiver = Receiver(list(answers))
    handler = type("Handler", (_Handler,), {"receiver": receiver})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.sni_callback = lambda _socket, name, _context: receiver.server_names.append(
            name
        )
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        receiver.tls = True
    receiver.address = (host, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="receiver")
    thread.start()
    try:
        yield receiver
    finally:
        receiver.leave.set()
        server.shutdown()
        server.server_close()
        thread.join()
