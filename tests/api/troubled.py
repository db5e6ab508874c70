"""A door before the API that loses answers, is away, or is full, as a test says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, TypeAlias

import httpx

LOSE: Final = "lose"
"""What is asked is done, and the answer never comes."""

DROP: Final = "drop"
"""The connection breaks before anything is done."""


@dataclass(frozen=True)
class Cut:
    """The answer breaks off after so many bytes."""

    after: int


Trouble: TypeAlias = str | int | tuple[int, bytes] | Cut | None
"""One of those, or a status that is answered, perhaps with a body; None: nothing is wrong."""


class Door(ThreadingHTTPServer):
    """Passes requests on, but for those that `plan` has something else for, in order."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.plan: list[Trouble] = []
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, path and Idempotency-Key of each request that came."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Door

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        self.server.asked.append((self.command, self.path, key))
        what = self.server.plan.pop(0) if self.server.plan else None
        if isinstance(what, int | tuple):
            status, text = what if isinstance(what, tuple) else (what, b"")
            self._write(status, {"Retry-After": "0"}, text)
            return
        if what == DROP:
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        with httpx.stream(
            self.command,
            self.server.upstream + self.path,
            headers=headers,
            content=body,
            timeout=30,
            trust_env=False,
        ) as came:
            if what == LOSE:
                came.read()
            elif isinstance(what, Cut) or "content-length" not in came.headers:
                self._pass_on(came, what.after if isinstance(what, Cut) else None)
            else:
                self._write(came.status_code, dict(came.headers), came.read())

    def _pass_on(self, came: httpx.Response, most: int | None) -> None:
        """Pass bytes on as they come; the connection's end is theirs."""
        self._begin(came.status_code, dict(came.headers))
        self.end_headers()
        for piece in came.iter_raw():
            part = piece if most is None else piece[:most]
            self.wfile.write(part)
            self.wfile.flush()
            most = None if most is None else most - len(part)
            if most == 0:
                return

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        ours = {"content-length", "date", "connection", "transfer-encoding"}
        for name, value in headers.items():
            if name.lower() not in ours:
                self.send_header(name, value)

    def _write(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._begin(status, headers)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  as the library wants them

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def before(upstream: str) -> Iterator[Door]:
    """Stand before the API at `upstream` until the block ends."""
    with Door(upstream) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.02,), name="door")
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()
