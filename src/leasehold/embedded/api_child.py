"""
The REST API of an embedded home: a child of the stack, on a socket that the stack holds.

The stack listens and the child answers. So the port is ours before anything is printed, a
request that comes while the child starts, or starts again, waits instead of being refused,
and nobody else can take the port meanwhile.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from typing import IO, Final

from leasehold.embedded.tether import command
from leasehold.errors import BadInputError
from leasehold.log import get_logger
from leasehold.provider.budget import boot_time

log = get_logger(__name__)
PORT: Final = 8321
HOST: Final = "127.0.0.1"
_AGAIN_S: Final = 2.0
_ASK_S: Final = 1.0
_STOP_S: Final = 15.0


def listen(port: int | None) -> socket.socket:
    """
    Return a loopback socket that listens: on `port`, or by default on 8321 or any free one.

    Raises:
        BadInputError: The port that was asked for cannot be taken.
    """
    try:
        return socket.create_server((HOST, PORT if port is None else port), backlog=512)
    except OSError as error:
        if port is None:
            return socket.create_server((HOST, 0), backlog=512)
        raise BadInputError(
            f"--api-port: {HOST}:{port} cannot be taken: {error.strerror or error}",
            field="--api-port",
        ) from None


class ApiChild:
    """Answers on a socket until `stop`; started again when it dies."""

    def __init__(
        self, listening: socket.socket, environment: Mapping[str, str], output: IO[bytes] | None
    ) -> None:
        self._socket, self._environment, self._output = listening, environment, output
        self.url = f"http://{HOST}:{listening.getsockname()[1]}"
        self._place = self.url.partition("://")[2]
        self._has_answered = False
        self._started_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        fd = self._socket.fileno()
        program = [sys.executable, "-m", "leasehold", "api", "--fd", str(fd), "--json"]
        self._started_at = boot_time()
        return subprocess.Popen(
            command(program, signum=signal.SIGTERM),
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._output,
            pass_fds=(fd,),
            start_new_session=True,
        )

    def look(self) -> None:
        """Start it; start it again if it has died, and not too often."""
        if self.process is not None:
            if self.process.poll() is None or boot_time() - self._started_at < _AGAIN_S:
                return
            log.warning("api.died", code=self.process.returncode)
        self.process = self._start()

    def answers(self) -> bool:
        """Return whether it has answered yet; asks it until it has."""
        if not self._has_answered:
            with (
                suppress(OSError),
                closing(HTTPConnection(self._place, timeout=_ASK_S)) as line,
            ):
                line.request("GET", "/healthz")
                self._has_answered = line.getresponse().status == HTTPStatus.OK
        return self._has_answered

    def stop(self) -> None:
        """Let it answer what is under way, and end it."""
        self._socket.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
