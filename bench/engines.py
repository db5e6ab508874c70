"""What an engine takes for the same work without us, by its own fastest way."""

import asyncio
import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, Self, TypeAlias

Once: TypeAlias = Callable[[], None]
"""Run `true` once, from nothing to nothing."""

_BWRAP: Final = (
    "bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
    "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
    "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
    "--", "true",
)  # fmt: skip


@contextmanager
def own_way(
    key: str, settings: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[str, Once] | None]:
    """Yield how the engine does it, and the call; None if there is no engine behind it."""
    match key:
        case "local" | "fake_plugin":
            yield "a subprocess", lambda: _subprocess("true")
        case "bubblewrap" if shutil.which("bwrap"):
            yield "bwrap by subprocess", lambda: _subprocess(*_BWRAP)
        case "docker":
            path = str(settings.get("socket") or "/var/run/docker.sock")
            with _Engine(path) as engine:
                image = str(config["image"])
                yield "create, start, wait, remove by API", lambda: engine.run(image)
        case "ssh":
            with _connection(config) as once:
                yield "true on a kept connection", once
        case _:
            yield None


def _subprocess(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class _Socket(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Engine:
    """Just enough of the API of docker and podman for one `docker run --rm`."""

    def __init__(self, path: str) -> None:
        self._http = _Socket(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def run(self, image: str) -> None:
        body = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        name = self._call("POST", "/containers/create", body)["Id"]
        self._call("POST", f"/containers/{name}/start")
        code = self._call("POST", f"/containers/{name}/wait")["StatusCode"]
        self._call("DELETE", f"/containers/{name}?force=true")
        if code != 0:
            raise SystemExit(f"bench: a container of {image} ended with {code}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        self._http.request(method, f"/v1.41{path}", text, headers)
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"bench: {method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data) if data.strip() else None


@contextmanager
def _connection(config: Mapping[str, Any]) -> Iterator[Once]:
    # It comes with the plugin, and is not there where that is not installed.
    asyncssh = import_module("asyncssh")
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(
        asyncssh.connect(
            config["host"],
            config.get("port", 22),
            username=config["user"],
            client_keys=[asyncssh.import_private_key(config["private_key"])],
            known_hosts=asyncssh.import_known_hosts(config["known_hosts"]),
            config=None,
        )
    )

    def once() -> None:
        loop.run_until_complete(connection.run("true", check=True))

    try:
        yield once
    finally:
        connection.close()
        loop.run_until_complete(connection.wait_closed())
        loop.close()
