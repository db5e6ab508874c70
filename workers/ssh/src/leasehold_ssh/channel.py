"""
One call on an open connection: an argv, its input, and all that comes back.

What sshd is given is a line for the account's shell, which may be any that knows single quotes
over several lines, and may print what its start-up files like. So the line first says a mark,
and what came before the mark is nobody's answer. Then it gives way to the call, in an
environment that has nothing of the account's but its rights.

The line between "not started" and "may have run" is the request that carries the command. A
caller that gives up leaves no channel behind: one that is still being opened is closed as soon
as it is there, or the sshd would count it until the connection ends.
"""

import asyncio
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import asyncssh

from leasehold.provider import SAFE_PATH, UnavailableError

if TYPE_CHECKING:
    Channel = asyncssh.SSHClientChannel[bytes]
    Session = asyncssh.SSHClientSession[bytes]
else:
    Channel, Session = asyncssh.SSHClientChannel, asyncssh.SSHClientSession

SessionT = TypeVar("SessionT", bound=Session)

_REQUEST_FAILED = 0xFFFFFFFF
"""The library's own code for a command that was sent and not confirmed."""


class NotStartedError(Exception):
    """No channel was opened: nothing was executed."""


class Answer(NamedTuple):
    """How a command line ended on the target."""

    rc: int
    out: bytes
    err: bytes


class _Listener(Session):
    """Collects what comes back until the channel is closed."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.rc: int | None = None
        self.signal: str | None = None
        self.closed: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )

    def data_received(self, data: bytes, datatype: int | None) -> None:
        (self.out if datatype is None else self.err).extend(data)

    def exit_status_received(self, status: int) -> None:
        self.rc = status

    def exit_signal_received(
        self,
        signal: str,
        core_dumped: bool,  # noqa: ARG002, FBT001  the library's signature
        msg: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
    ) -> None:
        self.signal = signal

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)


async def run(
    connection: asyncssh.SSHClientConnection, argv: Sequence[str], stdin: bytes
) -> Answer:
    """
    Run an argv in a channel of its own.

    Raises:
        NotStartedError: The channel was refused, or the connection had ended before.
        UnavailableError: The channel ended without an exit status; it may have run.
    """
    mark = os.urandom(8).hex()
    line = f"echo {mark}; exec env -i PATH={SAFE_PATH} LC_ALL=C {shlex.join(argv)}"
    answer = await _run(connection, line.encode(errors="surrogateescape"), stdin)
    before, found, out = answer.out.partition(f"{mark}\n".encode())
    if not found:
        text = (answer.err + before).decode(errors="replace").strip()[-300:]
        raise UnavailableError(f"the account's shell runs nothing (exit {answer.rc}): {text}")
    return answer._replace(out=out)


async def _run(connection: asyncssh.SSHClientConnection, line: bytes, stdin: bytes) -> Answer:
    channel, listener = await opened(connection, line, _Listener)
    try:
        # What ended before it read its input has an answer all the same.
        with suppress(OSError):
            if stdin:
                channel.write(stdin)
            channel.write_eof()
        trouble = await listener.closed
    finally:
        channel.abort()
    if listener.signal is not None:
        raise UnavailableError(f"a call was ended by signal {listener.signal} on the target")
    if trouble is not None or listener.rc is None:
        raise UnavailableError(f"the connection was lost in a call ({trouble or 'no status'})")
    return Answer(listener.rc, bytes(listener.out), bytes(listener.err))


async def opened(
    connection: asyncssh.SSHClientConnection, line: bytes, kind: Callable[[], SessionT]
) -> tuple[Channel, SessionT]:
    """
    Open a channel for one command line; `kind` makes who listens to it.

    Raises:
        NotStartedError: It was refused, or the connection had ended before.
        UnavailableError: It was not confirmed, or the connection was lost meanwhile.
    """
    # Bytes: a path may hold what no text can, and they are sent as they are.
    session = connection.create_session(kind, cast("str", line), encoding=None)
    opening = asyncio.get_running_loop().create_task(session)
    try:
        channel, listener = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise
    except asyncssh.ChannelOpenError as error:
        if error.code == _REQUEST_FAILED:
            raise UnavailableError(f"a call was not confirmed ({error.reason})") from error
        raise NotStartedError(error.reason) from error
    except asyncssh.Error as error:
        raise UnavailableError(f"the connection was lost in a call ({error.reason})") from error
    except OSError as error:
        raise NotStartedError(str(error)) from error
    return cast("Channel", channel), cast("SessionT", listener)


def _close_late(opening: "asyncio.Task[tuple[Channel, Session]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()
