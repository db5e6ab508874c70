"""
Serves the application: one process, handlers in threads, until told to stop.

Several processes may serve one deployment: nothing is kept in memory between two requests but
how often who asked (`gate`), and who watches a stream may go on with any of them.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from leasehold import bootstrap
from leasehold.api import application
from leasehold.api.door import Door
from leasehold.api.watch import Pace
from leasehold.errors import BadInputError
from leasehold.settings import Settings

POOL_SIZE: Final = 21
"""Connections that are kept; with 20 more for a while, one for each of 40 threads and one for
the poller of streams."""

_IDLE_S: Final = 15
_DRAIN_S: Final = 10
_HEADERS_IN_FLIGHT: Final = 64 * 1024
"""Above our own limit, so that what is a little too big is refused in our shape."""


class _Server(uvicorn.Server):
    """Leaves signals alone: whoever starts it says when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """The API at an address; makes the parts, owns them, closes them."""

    def __init__(
        self, settings: Settings, *, host: str, port: int, fd: int = -1, **limits: Any
    ) -> None:
        self._socket = _listen(host, port) if fd < 0 else socket.socket(fileno=fd)
        try:
            self._app = bootstrap.build(settings, pool_size=POOL_SIZE)
        except BaseException:
            self._socket.close()
            raise
        pace = limits.pop("pace", None) or Pace(viewers=settings.api_streams)
        self.application = application.make(Door(self._app), settings, pace=pace, **limits)
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self._server = _Server(
            uvicorn.Config(
                self.application,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.api_proxies),
                forwarded_allow_ips=settings.api_proxies.split(","),
                lifespan="off",
                ws="none",
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_DRAIN_S,
                h11_max_incomplete_event_size=_HEADERS_IN_FLIGHT,
            )
        )

    def serve(self) -> None:
        """Answer requests until `stop`; those that are under way are answered first."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._app.database.close()

    def stop(self) -> None:
        """Let `serve` return; from any thread or signal handler."""
        self.application.state.watch.stopping = True
        self._server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        BadInputError: The address cannot be taken; says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise BadInputError(
            f"--host, --port: {host}:{port} cannot be taken: {error.strerror or error}",
            field="--port",
        ) from None
    # asyncio does it only for sockets that name their protocol, and each answer, which goes out
    # in two writes, would wait 40 ms for the client's delayed acknowledgement. It is inherited.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
