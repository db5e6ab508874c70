"""
Kept connections: one per login, many calls over it, from any thread.

The contract's methods are synchronous; asyncssh is not. It was taken all the same: it has one
state machine per connection instead of one thread, says exactly how far a call got, and finds
dead connections by itself. So each process has one thread with an event loop, made at the
first call (after any fork: a process that finds itself to be another one makes its own), and
callers wait for it in slices, so that a budget that runs out or is cancelled is noticed.

Everything about a connection is touched in the loop only. Its states:

    absent      no call needed it, or it was lost, or nobody used it for ten minutes
    opening     one attempt at a time, shared by all who wait; bounded by itself, so that an
                impatient caller ends its own wait and not the attempt
    open        calls run, at most `sessions` at once; more wait in line. Each has a kept shell
                to itself (`shells`), or a channel of its own if it brings much. The sshd may
                allow fewer: a refused channel was not executed, so it is asked for again, and
                a shell that nobody uses makes room for it
    worn        a call on it was given up. An sshd counts a session until what runs in it has
                ended, so given-up calls would use up all it allows: nobody new comes here, the
                next call opens another, and this one is closed with the last call on it
    lost        every call on it fails at once, the next one opens another

What do failures mean? Before the command was sent, nothing happened: one more attempt is made
if the connection was an old one, since those die unnoticed. From then on it may have happened:
`UnavailableError`, and the caller repeats it under the same id. A channel that ends without an
exit status is such a failure whatever it printed, and so is a death by signal of what we ran.
A target that vanished without a word is found by its silence, in a quarter of a minute; TCP
alone would take a quarter of an hour.

Who dies here? We: the connection falls, what we called on the target goes on or fails at its
next word, and the supervisor's files say how far it came. The sshd: as a lost connection.

Secrets: keys are in memory only. A connection is kept under a digest of its login, and the
library's log, which would quote commands, is kept to warnings.
"""

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from leasehold.provider import (
    AuthFailedError,
    Budget,
    ConfigRejectedError,
    DeadlineExceededError,
    ProviderError,
    UnavailableError,
)
from leasehold_ssh.config import Login, read_key

if TYPE_CHECKING:
    import asyncssh

    from leasehold_ssh.channel import Answer
    from leasehold_ssh.shells import Shell

_SLICE_S: Final = 0.2
_OPENING_S: Final = 15.0
_SILENCE_S: Final = 5.0
_SILENCES: Final = 2
_IDLE_S: Final = 600.0
_REFUSED_S: Final = 20.0
_REFUSED_PAUSE_S: Final = 0.05
_CLOSING_S: Final = 5.0
_KEPT: Final = 4
"""Shells that wait for the next call."""


class Call(NamedTuple):
    """One argv with its input for one target."""

    login: Login
    argv: Sequence[str]
    stdin: bytes


class Connections:
    """All connections of this process to any target."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def run(self, call: Call, *, budget: Budget) -> "Answer":
        """
        Make one call, wait for its end.

        Raises:
            UnavailableError: The target was not reached or lost; it may have run.
            AuthFailedError: The target refused the key.
            ConfigRejectedError: The target's host key is not one of `known_hosts`.
        """
        (answer,) = self.run_all([call], budget=budget)
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    def run_all(self, calls: "list[Call]", *, budget: Budget) -> "list[Answer | ProviderError]":
        """Run several at once; each failure is its own, running out of time included."""
        budget.check()
        loop = self._running()
        futures = [asyncio.run_coroutine_threadsafe(self._one(c), loop) for c in calls]
        waiting: set[concurrent.futures.Future[Answer]] = set(futures)
        trouble: ProviderError = UnavailableError("the call was given up")
        try:
            while waiting:
                pause = max(0.001, min(_SLICE_S, budget.left_s()))
                _, waiting = concurrent.futures.wait(waiting, pause)
                if waiting:
                    budget.check()
        except DeadlineExceededError as error:
            trouble = error
        finally:
            for future in waiting:
                future.cancel()
        return [trouble if f in waiting else _outcome(f) for f in futures]

    async def _one(self, call: Call) -> "Answer":
        mark = call.login.mark
        link = self._links.get(mark)
        if link is None:
            link = self._links[mark] = Link(call.login, lambda: self._links.pop(mark, None))
        return await link.run(call)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._pid != os.getpid():
                # A fork has neither the thread nor a right to its parent's connections.
                self._links, self._loop, self._pid = {}, None, os.getpid()
            if self._loop is None:
                import asyncssh

                asyncssh.set_log_level(logging.WARNING)
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="leasehold-ssh", daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Close every connection and end the thread; the next call starts anew."""
        with self._lock:
            loop, thread, links = self._loop, self._thread, self._links
            self._loop, self._thread, self._links = None, None, {}
            if loop is None or thread is None or self._pid != os.getpid():
                return
        closing = asyncio.run_coroutine_threadsafe(_close_all(list(links.values())), loop)
        with suppress(TimeoutError, concurrent.futures.TimeoutError):
            closing.result(_CLOSING_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_S)
        if not thread.is_alive():
            loop.close()


def _outcome(future: "concurrent.futures.Future[Answer]") -> "Answer | ProviderError":
    try:
        return future.result()
    except ProviderError as error:
        return error
    except concurrent.futures.CancelledError:
        return UnavailableError("the connection was closed by us")


async def _close_all(links: "list[Link]") -> None:
    for link in links:
        await link.close()
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_default_executor()


class Link:
    """One login's connection; every method runs in the loop."""

    def __init__(self, login: Login, forget: Callable[[], object]) -> None:
        self._login = login
        self._forget = forget
        self._slots = asyncio.Semaphore(login.sessions)
        self._wire: Wire | None = None
        self._opening: asyncio.Task[Wire] | None = None
        self._calls = 0
        self._idle: asyncio.TimerHandle | None = None

    async def run(self, call: Call) -> "Answer":
        self._calls += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            async with self._slots:
                return await self._run(call)
        finally:
            self._calls -= 1
            if not self._calls:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(_IDLE_S, self._rest)

    async def _run(self, call: Call) -> "Answer":
        from leasehold_ssh import channel

        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _REFUSED_S
        retried = False
        while True:
            kept = self._wire is not None
            wire = await self._connected()
            try:
                with wire:
                    return await wire.call(call, sessions=self._login.sessions)
            except channel.NotStartedError as error:
                if wire.connection.is_closed():
                    if not kept or retried:
                        raise UnavailableError(f"{self._login.name}: {error}") from error
                    retried = True
                elif loop.time() > give_up_at:
                    text = f"{self._login.name} opens no channel: {error}"
                    raise UnavailableError(text) from error
                elif not wire.make_room():
                    await asyncio.sleep(_REFUSED_PAUSE_S)
            except UnavailableError as error:
                raise UnavailableError(f"{self._login.name}: {error}") from error

    async def _connected(self) -> "Wire":
        if self._wire is not None and self._wire.is_good():
            return self._wire
        self._wire = None
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: "asyncio.Task[Wire]") -> None:
        self._opening = None
        if not task.cancelled() and task.exception() is None:
            self._wire = task.result()

    async def _open(self) -> "Wire":
        import asyncssh

        login = self._login
        # A passphrase is made slow to try on purpose; the loop has other calls to serve.
        key = await asyncio.to_thread(read_key, login.private_key, login.passphrase)
        try:
            connection = await asyncssh.connect(
                login.host,
                login.port,
                username=login.user,
                client_keys=[key],
                # An object, never None: that would mean "trust anybody".
                known_hosts=asyncssh.import_known_hosts(login.known_hosts),
                # Nothing of the worker's own account takes part: no files, agent or password.
                config=None,
                agent_path=None,
                x509_trusted_certs=None,
                gss_host=None,
                preferred_auth="publickey",
                password=None,
                host_based_auth=False,
                connect_timeout=_OPENING_S,
                login_timeout=_OPENING_S,
                keepalive_interval=_SILENCE_S,
                keepalive_count_max=_SILENCES,
            )
            return Wire(connection)
        except asyncssh.PermissionDenied:
            text = f"{login.name} refused the key"
            raise AuthFailedError(text) from None
        except asyncssh.HostKeyNotVerifiable as error:
            text = f"{login.name}: its host key is not in known_hosts ({error.reason})"
            raise ConfigRejectedError(text) from error
        except asyncssh.KeyExchangeFailed as error:
            # Also: known_hosts has a key of another kind than any that the target offers.
            text = f"{login.name}: no algorithm in common, host keys included ({error.reason})"
            raise ConfigRejectedError(text) from error
        except asyncssh.Error as error:
            raise UnavailableError(f"{login.name}: {error.reason}") from error
        except (OSError, TimeoutError) as error:
            text = str(error) or "no answer in time"
            raise UnavailableError(f"{login.name} is not reached: {text}") from error
        except ValueError as error:
            raise ConfigRejectedError(f"{login.name}: {error}") from error

    def _rest(self) -> None:
        self._forget()
        if self._wire is not None:
            self._wire.connection.close()

    async def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._wire is not None:
            self._wire.connection.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wire.connection.wait_closed(), _CLOSING_S / 2)


class Wire:
    """One open connection, and the calls on it: each is a `with` block."""

    def __init__(self, connection: "asyncssh.SSHClientConnection") -> None:
        self.connection = connection
        self._shells: list[Shell] = []
        self._calls = 0
        self._worn = False

    async def call(self, call: Call, *, sessions: int) -> "Answer":
        """
        Make a call: by a shell that is there, by a new one, or in a channel of its own.

        Raises:
            NotStartedError: Nothing was executed.
            UnavailableError: It may have run.
        """
        from leasehold_ssh import channel, shells

        self._shells = [one for one in self._shells if one.is_good()]
        alone = len(call.stdin) > shells.INPUT_MOST
        if alone or not self._shells:
            if self._calls + len(self._shells) > sessions:
                self.make_room()
            if alone:
                return await channel.run(self.connection, call.argv, call.stdin)
            shell = await shells.Shell.open(self.connection)
        else:
            shell = self._shells.pop()
        try:
            answer = await shell.run(call.argv, call.stdin)
        except BaseException:
            shell.close()
            raise
        if len(self._shells) < _KEPT:
            self._shells.append(shell)
        else:
            shell.close()
        return answer

    def make_room(self) -> bool:
        """Close a shell that nobody uses; false if there is none."""
        if not self._shells:
            return False
        self._shells.pop().close()
        return True

    def is_good(self) -> bool:
        return not self._worn and not self.connection.is_closed()

    def __enter__(self) -> None:
        self._calls += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._calls -= 1
        self._worn = self._worn or kind is asyncio.CancelledError
        if self._worn and not self._calls:
            self.connection.abort()
