"""
A host's own network, which can be cut: a namespace, or a proxy where none is permitted.

In a namespace (`Namespace`) the host's processes have one cable, a veth pair; what they reach
through it is a relay at our end, since database and broker listen on loopback. The cut takes
our end of the cable down: packets vanish, nobody is told, connections hang, as when a switch
dies. Without the right to make a namespace the relay itself falls silent: the same for all
that goes through it, but the host's own network stack notices nothing.

If we are killed: processes in the namespace keep it until they end; `sweep` removes those
that nobody owns any more, at the next start.
"""

import asyncio
import os
import random
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from leasehold.embedded.broker import HOST

_PREFIX: Final = "leasehold-chaos-"
_CABLE: Final = "lhc"
_NAMES: Final = Path("/run/netns")


def ip(*words: str) -> None:
    """
    Run the tool of that name.

    Raises:
        PermissionError: It is missing or was refused; says why.
    """
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PermissionError("there is no program `ip`") from None
    if done.returncode:
        raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def sweep() -> None:
    """Remove the namespaces of processes that are no more; their cables go with them."""
    for path in _NAMES.glob(f"{_PREFIX}*"):
        owner = re.fullmatch(rf"{_PREFIX}(\d+)", path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            with suppress(PermissionError):
                ip("netns", "del", path.name)


class Relay:
    """Passes bytes from a door to a server on loopback; falls silent when told to."""

    def __init__(self, address: str, targets: list[int]) -> None:
        self._address, self._targets = address, targets
        self.doors: dict[int, int] = {}
        """Target port → the door's port."""

        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        for target in self._targets:
            server = await asyncio.start_server(self._serving(target), self._address, 0)
            self.doors[target] = server.sockets[0].getsockname()[1]

    def _serving(
        self, target: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._pass_on(target, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return serve

    async def _pass_on(
        self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._open.wait()
        try:
            there, back = await asyncio.open_connection(HOST, target)
        except OSError:
            writer.close()
            return
        for each in (writer, back):
            sock: socket.socket = each.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        async def end() -> None:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


class Namespace:
    """
    A network namespace with one cable to us.

    Raises:
        PermissionError: This machine does not let us make one; nothing is left behind.
    """

    def __init__(self) -> None:
        sweep()
        number = random.SystemRandom().randrange(1 << 14)
        # 198.18.0.0/15 is set aside for benchmarks: nobody routes it.
        base = f"198.18.{number >> 6}.{(number & 63) * 4}".rsplit(".", 1)
        self.name = f"{_PREFIX}{os.getpid()}"
        self.ours = f"{base[0]}.{int(base[1]) + 1}"
        theirs = f"{base[0]}.{int(base[1]) + 2}"
        self._cable = f"{_CABLE}{os.getpid()}"
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0",
               "netns", self.name)  # fmt: skip
            ip("addr", "add", f"{self.ours}/30", "dev", self._cable)
            ip("link", "set", self._cable, "up")
            ip("-n", self.name, "addr", "add", f"{theirs}/30", "dev", "eth0")
            ip("-n", self.name, "link", "set", "eth0", "up")
            ip("-n", self.name, "link", "set", "lo", "up")
        except PermissionError:
            self.close()
            raise

    def launcher(self) -> list[str]:
        """Return what stands before an argv that is to run in here, under the same pid."""
        return ["nsenter", f"--net={_NAMES / self.name}", "--"]

    def cut(self) -> None:
        ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        ip("link", "set", self._cable, "up")

    def close(self) -> None:
        with suppress(PermissionError):
            ip("link", "del", self._cable)
        with suppress(PermissionError):
            ip("netns", "del", self.name)


class Wire:
    """How one host reaches the servers; `kind` says by what it is cut."""

    def __init__(self, targets: list[int]) -> None:
        self._namespace: Namespace | None = None
        try:
            self._namespace = Namespace()
            self.kind = "network namespace"
            self.address = self._namespace.ours
        except PermissionError as error:
            self.kind = f"TCP proxy, since a namespace is not permitted here ({error})"
            self.address = HOST
        self._relay = Relay(self.address, targets)
        self.launcher = self._namespace.launcher() if self._namespace else []

    def door(self, target: int) -> int:
        """Return the port at which the server of that port is reached."""
        return self._relay.doors[target]

    def cut(self) -> None:
        (self._namespace or self._relay).cut()

    def mend(self) -> None:
        (self._namespace or self._relay).mend()

    def close(self) -> None:
        self._relay.close()
        if self._namespace is not None:
            self._namespace.close()
