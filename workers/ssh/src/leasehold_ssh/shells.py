"""
A shell that is kept on the target: many calls, one after the other, through one channel.

A channel of its own costs each call a trip, a process of the sshd's and the account's shell.
So a plain `sh` stays at the other end, in an environment that has nothing of the account's but
its rights; a call is a line of text for it. What it executes is the very argv that a channel
would have got, as a child of its own: so nothing of one call is left for the next, and a call
that dies, or kills itself in a crash test, is one child that died. Long words that come again
and again (the supervisor's text) are told once and kept in a variable. Secrets are in a call's
input only: it passes the shell's own `printf`, which is no process and has no argv.

An answer is everything up to a line with a mark that was made for this call, on both streams.

What do failures mean? A shell that ended before a call was written: nothing happened, and who
calls opens another. From the first byte on it may have happened, as in a channel of its own.
A call that is given up takes its shell with it: what it says would be the next one's answer.
If the worker dies, or the connection, the shell reads the end of its input and leaves; a call
that is under way goes on, as it did in its own channel.
"""

import asyncio
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from leasehold.provider import SAFE_PATH, UnavailableError
from leasehold_ssh.channel import Answer, Channel, NotStartedError, Session, opened

if TYPE_CHECKING:
    import asyncssh

INPUT_MOST: Final = 32 * 1024
"""Longer input takes a channel of its own: a shell reads its lines whole."""

_LONG: Final = 2000
_TEXTS_MOST: Final = 8
_KILLED: Final = 128
_PLAIN: Final = frozenset(b"\n") | frozenset(range(32, 127)) - frozenset(b"'\\")


class _Stream:
    """What one stream said in this call."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.end = -1
        self._seen = 0

    def has(self, mark: bytes) -> bool:
        """Look for the mark's line, whole, in what is new."""
        if self.end < 0:
            at = self.data.find(mark, max(0, self._seen - len(mark)))
            self._seen = len(self.data)
            if at >= 0:
                self.end = at
        return self.end >= 0 and self.data.find(b"\n", self.end + len(mark)) >= 0

    def taken(self) -> tuple[bytes, bytes]:
        """Return what stands before the mark, and the rest of its line."""
        before, line = bytes(self.data[: self.end]), bytes(self.data[self.end :])
        self.data.clear()
        self.end, self._seen = -1, 0
        return before, line.strip(b"\n")


class _Voices(Session):
    """Both streams of a kept shell."""

    def __init__(self) -> None:
        self.out, self.err = _Stream(), _Stream()
        self.mark = b""
        self.closed = False
        self.answered: asyncio.Future[None] | None = None

    def data_received(self, data: bytes, datatype: int | None) -> None:
        (self.out if datatype is None else self.err).data.extend(data)
        if self.mark and self.out.has(self.mark) and self.err.has(self.mark):
            self._tell()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  its signature
        self.closed = True
        self._tell()

    def _tell(self) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(None)


class Shell:
    """One kept shell; whoever has it has it alone."""

    def __init__(self, channel: Channel, voices: _Voices, hello: bytes) -> None:
        self._channel, self._voices, self._hello = channel, voices, hello
        self._texts: dict[str, str] = {}

    @classmethod
    async def open(cls, connection: "asyncssh.SSHClientConnection") -> "Shell":
        """
        Start one.

        Raises:
            NotStartedError: The channel was refused, or the connection had ended before.
            UnavailableError: The request for it was not confirmed.
        """
        hello = os.urandom(8).hex()
        line = f"echo {hello}; exec env -i PATH={SAFE_PATH} LC_ALL=C /bin/sh -s"
        channel, voices = await opened(connection, line.encode(), _Voices)
        return cls(channel, voices, hello.encode())

    def is_good(self) -> bool:
        return not self._voices.closed

    def close(self) -> None:
        self._channel.abort()

    async def run(self, argv: Sequence[str], stdin: bytes) -> Answer:
        """
        Run an argv as the shell's child.

        Raises:
            NotStartedError: The shell had ended before.
            UnavailableError: It ended, or the call by a signal; it may have run.
        """
        voices = self._voices
        mark = os.urandom(8).hex()
        text = self._line(argv, stdin, mark)
        voices.mark = f"\n{mark} ".encode()
        voices.answered = asyncio.get_running_loop().create_future()
        if voices.closed:
            raise NotStartedError("a kept shell had ended")
        try:
            self._channel.write(text)
        except OSError as error:
            raise NotStartedError(str(error)) from error
        await voices.answered
        if not (voices.out.has(voices.mark) and voices.err.has(voices.mark)):
            said = bytes(voices.err.data + voices.out.data).decode(errors="replace").strip()
            if self._hello and self._hello not in voices.out.data:
                raise UnavailableError(f"the account's shell runs nothing: {said[-300:]}")
            raise UnavailableError(f"the connection was lost in a call ({said[-300:]})")
        voices.mark = b""
        (out, line), (err, _) = voices.out.taken(), voices.err.taken()
        if self._hello:
            _, found, out = out.partition(self._hello + b"\n")
            if not found:
                raise UnavailableError("the account's shell runs nothing")
            self._hello = b""
        code = int(line.split()[-1])
        if code > _KILLED:
            text_ = f"a call was ended by signal {code - _KILLED} on the target"
            raise UnavailableError(text_)
        return Answer(code, out, err)

    def _line(self, argv: Sequence[str], stdin: bytes, mark: str) -> bytes:
        told, words = "", []
        for word in argv:
            known = self._texts.get(word)
            if known is None and len(word) > _LONG and len(self._texts) < _TEXTS_MOST:
                known = self._texts[word] = f"leasehold_{len(self._texts)}"
                told += f"{known}={shlex.quote(word)}\n"
            words.append(shlex.quote(word) if known is None else f'"${known}"')
        command = " ".join(words)
        if stdin:
            command = f"printf %b '{_escaped(stdin)}' | {command}"
        else:
            command += " </dev/null"
        end = f"rc=$?; printf '\\n{mark} 0\\n' >&2; printf '\\n{mark} %s\\n' $rc"
        return f"{told}{command}\n{end}\n".encode(errors="surrogateescape")


def _escaped(data: bytes) -> str:
    """Return bytes as `printf %b` reads them, in single quotes."""
    return "".join(chr(one) if one in _PLAIN else f"\\0{one:03o}" for one in data)
