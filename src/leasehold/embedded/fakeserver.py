"""
fakeredis behind a TCP port, mended so far that Celery can live on it.

The stock server drops a connection on any error reply, lets Nagle hold each pipeline for
44 ms, polls every connection every 10 ms, knows neither INFO nor passwords that bind, and
keeps popping for clients that are dead. Here:

- One daemon thread per connection sleeps in `poll` until bytes or a push come; idle costs
  nothing.
- Replies to the connection's own commands are written by its own thread. What another
  connection publishes is queued, and the thread is woken through an eventfd: nobody writes
  to a socket while holding the server's lock, so a stopped subscriber stalls nobody. One
  that lets too much pile up is cut off, as a real server does.
- An error is a reply. Only bytes that are no Redis protocol end a connection.
- A blocked pop looks whether its client is still there before it takes anything.
- Nothing but AUTH, HELLO and QUIT is answered before the password was given.

If we die here, all messages are lost, and that is allowed (promise P6): rows are their own
outbox. For evaluation and tests; a real server does the same for less than half the CPU.
"""

import hmac
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from socketserver import StreamRequestHandler
from typing import Any, Final

import redis
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._socket import FakeSocket

_LOG: Final = logging.getLogger(__name__)
_VERSION: Final = (7, 4)
_CHUNK: Final = 1 << 18
_MAX_QUEUED_PUSHES: Final = 50_000
_BEFORE_AUTH: Final = frozenset({b"auth", b"hello", b"quit"})


class ClientGoneError(Exception):
    """The peer closed its connection while it was blocked in a command."""


class _Session(FakeSocket):
    """One client's conversation: gate, commands of ours, then fakeredis."""

    def __init__(self, server: "BrokerServer", connection: socket.socket) -> None:
        super().__init__(server.fake_server, 0, client_class=redis.Redis)
        self._front = server
        self._connection = connection
        self._owner = threading.get_ident()
        self._trusted = not server.password
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.quitting = False

    @property
    def blocked(self) -> bool:
        """Say whether the client waits in a command."""
        return bool(self._blocked)

    def put_response(self, msg: Any) -> None:
        responses = self.responses
        if responses is None:
            return
        responses.put(msg)
        if threading.get_ident() == self._owner:
            return
        if responses.qsize() > _MAX_QUEUED_PUSHES:
            self._connection.shutdown(socket.SHUT_RDWR)
        os.eventfd_write(self.wake, 1)

    def replies(self) -> bytes:
        """Take everything that is to be sent now."""
        parts = []
        while self.responses is not None and not self.responses.empty():
            reply = self.responses.get_nowait()
            parts.append(encode_reply(reply, self._client_info.protocol_version))
        return b"".join(parts)

    def _process_command(self, fields: list[bytes]) -> None:
        name = fields[0].lower() if fields else b""
        try:
            answer = self._own_command(name, fields)
            if answer is None:
                super()._process_command(fields)
            else:
                self.put_response(answer)
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001 (a fault in fakeredis ends no connection)
            _LOG.exception("command %s failed", name.decode(errors="replace"))
            self.put_response(redis.ResponseError(f"{type(error).__name__}: {error}"))

    def _own_command(self, name: bytes, fields: list[bytes]) -> Any:
        if name == b"auth":
            return self._check(fields[-1]) if len(fields) in (2, 3) else None
        if name == b"hello":
            refusal = self._hello(fields)
            if refusal is not None:
                return refusal
        if not self._trusted and name not in _BEFORE_AUTH:
            return redis.AuthenticationError("NOAUTH Authentication required.")
        if name == b"quit":
            self.quitting = True
            return b"OK"
        if name == b"info":
            return self._front.info()
        return None

    def _hello(self, fields: list[bytes]) -> Any:
        """Take the AUTH words out of a HELLO and judge them; None: let it pass."""
        words = [word.lower() for word in fields]
        if b"auth" in words:
            at = words.index(b"auth")
            answer = self._check(fields[at + 2] if len(fields) > at + 2 else b"")
            if isinstance(answer, Exception):
                return answer
            del fields[at : at + 3]
        if not self._trusted:
            return redis.AuthenticationError("NOAUTH HELLO must be called with AUTH.")
        return None

    def _check(self, password: bytes) -> Any:
        if self._front.password and not hmac.compare_digest(password, self._front.password):
            return redis.AuthenticationError("WRONGPASS invalid username-password pair.")
        self._trusted = True
        return b"OK"

    def _blocking(
        self,
        timeout: float | None,
        func: Callable[[bool], Any],
        shape: Callable[[Any], Any] | None = None,
    ) -> Any:
        def only_if_there(first_pass: bool) -> Any:  # noqa: FBT001 (fakeredis calls it so)
            if self._peer_is_gone():
                raise ClientGoneError
            return func(first_pass)

        return super()._blocking(timeout, only_if_there, shape)

    def _peer_is_gone(self) -> bool:
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


class _Handler(StreamRequestHandler):
    """Move bytes between one connection and its session."""

    disable_nagle_algorithm = True
    server: "BrokerServer"

    def handle(self) -> None:
        session = _Session(self.server, self.connection)
        self.server.sessions.add(session)
        try:
            self._converse(session)
        except (ClientGoneError, OSError):
            pass  # it is the peer's right to leave at any time
        except Exception as error:  # noqa: BLE001 (no Redis protocol: say so and hang up)
            self._hang_up(error)
        finally:
            self.server.sessions.discard(session)
            session.close()
            os.close(session.wake)

    def _hang_up(self, error: Exception) -> None:
        try:
            self.connection.sendall(f"-ERR Protocol error: {error}\r\n".encode())
        except OSError:
            _LOG.debug("a client left before it was told: %s", error)

    def _converse(self, session: _Session) -> None:
        watch = select.poll()
        watch.register(self.connection, select.POLLIN)
        watch.register(session.wake, select.POLLIN)
        while not session.quitting:
            for fd, _ in watch.poll():
                if fd == session.wake:
                    os.eventfd_read(session.wake)
                    continue
                data = self.connection.recv(_CHUNK)
                if not data:
                    return
                session.sendall(data)
            if reply := session.replies():
                self.connection.sendall(reply)


class BrokerServer(TcpFakeServer):
    """The server; `serve_forever` it in a thread that you keep."""

    request_queue_size = 128
    block_on_close = False

    def __init__(self, port: int, *, password: str) -> None:
        super().__init__(("127.0.0.1", port), server_version=_VERSION)
        self.daemon_threads = True
        self.RequestHandlerClass = _Handler
        self.password = password.encode()
        self.sessions: set[_Session] = set()

    def info(self) -> bytes:
        """Return what clients look for in INFO."""
        keys = {number: len(db) for number, db in self.fake_server.dbs.items()}
        sessions = list(self.sessions)
        lines = [
            "# Server",
            "redis_version:{}.{}.0".format(*_VERSION),
            "redis_mode:standalone",
            f"process_id:{os.getpid()}",
            f"tcp_port:{self.server_address[1]}",
            "# Clients",
            f"connected_clients:{len(sessions)}",
            f"blocked_clients:{sum(session.blocked for session in sessions)}",
            "# Memory",
            "maxmemory:0",
            "maxmemory_policy:noeviction",
            "# Persistence",
            "loading:0",
            "aof_enabled:0",
            "# Replication",
            "role:master",
            "connected_slaves:0",
            "# Keyspace",
            *(f"db{n}:keys={count},expires=0,avg_ttl=0" for n, count in keys.items() if count),
        ]
        return "\r\n".join([*lines, ""]).encode()
