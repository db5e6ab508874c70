"""
A wire between a client and a server that a test holds in its hands.

It passes bytes from its own port to the server's, until told to stall (accept, take, answer
nothing), to cut (every connection dies at once, new ones are refused or not), or to lose the
answers to COMMIT: the server commits, then the connection dies before the client hears of it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from leasehold.embedded.broker import HOST

_COMMIT: Final = b"COMMIT\x00"
"""Ends PostgreSQL's simple query "COMMIT", and the server's tag of it, alike."""


class Wire:
    """One door on loopback to one server's port; steered from the test's thread."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_lose = 0
        self.lost_answers = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Here: a task that is cancelled before it began would never close it.
        self._writers.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_: list[asyncio.StreamWriter] = [writer]
        try:
            await self._flows.wait()
            there, back = await asyncio.open_connection(HOST, self._target)
            open_.append(back)
            self._writers.add(back)
            commits = asyncio.Event()
            await asyncio.gather(
                self._pump(reader, back, sees=commits), self._pump(there, writer, loses=commits)
            )
        except OSError:
            return
        finally:
            for one in open_:
                one.close()
            for one in open_:
                with suppress(OSError):
                    await one.wait_closed()
                self._writers.discard(one)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        sees: asyncio.Event | None = None,
        loses: asyncio.Event | None = None,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                if sees is not None and _COMMIT in data:
                    sees.set()
                if loses is not None and loses.is_set() and _COMMIT in data:
                    loses.clear()
                    if self._to_lose:
                        self._to_lose -= 1
                        self.lost_answers += 1
                        break
                sink.write(data)
                await sink.drain()
        sink.transport.abort() if loses is not None else sink.close()

    def stall(self) -> None:
        """Take what comes, pass nothing on, say nothing."""
        self._call(self._flows.clear)

    def flow(self) -> None:
        """Pass on again, first what was held."""
        self._call(self._flows.set)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stall for the length of the block."""
        self.stall()
        try:
            yield
        finally:
            self.flow()

    def cut(self) -> None:
        """Reset every connection that there is; new ones are taken."""

        def reset() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._call(reset)

    @property
    def armed(self) -> bool:
        """Whether answers are still to be lost."""
        return self._to_lose > 0

    def lose_answers(self, count: int) -> None:
        """Let the next so many commits happen and their clients never hear of it."""

        def arm() -> None:
            self._to_lose = count

        self._call(arm)

    def _call(self, deed: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            deed()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def close(self) -> None:
        """Cut everything and end."""

        async def end() -> None:
            # No more are accepted, and those that asyncio is just accepting come in first:
            # clients that drain connect until the end. Were the server closed by then, their
            # sockets would be nobody's.
            for door in self._server.sockets:
                self._loop.remove_reader(door.fileno())
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks & self._tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

        self._call(self._flows.set)
        self.cut()
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
