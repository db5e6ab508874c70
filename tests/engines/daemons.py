"""
Private container engines for tests: Docker Engine and Podman, each with a root of its own.

Nothing of the machine's own engines is touched: sockets, images, containers and state lie in a
directory of the test process, and the engine dies with it. Images are made from the machine's
busybox; no registry is asked.

A missing engine is a `MissingServiceError`, as for any other service: see `services.missing`.
"""

import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import docker
import docker.errors

from leasehold.embedded import tether
from services import MissingServiceError

IMAGE: Final = "localhost/bb:latest"
_PREFIX: Final = "lh-engine-"
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
"""The limits: a machine may refuse to raise them. The rest: what works without systemd."""


@dataclass
class Running:
    """An engine that runs; `restart` kills it and starts it again on the same state."""

    kind: str
    socket: str
    argv: list[str]
    home: Path
    env: dict[str, str] = field(default_factory=dict)
    child: "subprocess.Popen[bytes] | None" = None
    version: str = "auto"

    def api(self) -> docker.APIClient:
        address = f"unix://{self.socket}"
        client = docker.APIClient(base_url=address, version=self.version, timeout=60)
        # Asked for once: Podman's answer takes a third of a second.
        self.version = client.api_version
        return client

    def start(self) -> None:
        log = self.home / "log"
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                tether.command(self.argv, signum=signal.SIGTERM),
                cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], "HOME": str(self.home), **self.env},
            )  # fmt: skip
        give_up_at = monotonic() + 60
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as trial:
                    trial.connect(self.socket)
                client = self.api()
                client.ping()
                client.close()
            except (docker.errors.DockerException, OSError):
                if self.child.poll() is not None or monotonic() > give_up_at:
                    text = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.kind}: {text}") from None
                sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill the engine itself with SIGKILL; its containers are not asked."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()
        # Its containerd dies with it. Where process 1 reaps late, the number stays taken, and
        # a new engine would wait for that zombie to answer.
        record = self.home / "exec/containerd/containerd.pid"
        if record.exists():
            stat = Path(f"/proc/{record.read_text()}/stat")
            while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
                sleep(0.02)
            record.unlink()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        assert self.child is not None
        if self.child.poll() is None:
            client = self.api()
            for one in client.containers(all=True):
                with suppress(docker.errors.APIError):
                    client.remove_container(one["Id"], force=True, v=True)
            client.close()
        self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def _need(*programs: str) -> None:
    lacking = [name for name in programs if not shutil.which(name)]
    if lacking:
        raise MissingServiceError(f"{' and '.join(lacking)}: not on this machine")
    if os.geteuid() != 0:
        raise MissingServiceError("engines of our own need root")


def busybox_tree() -> bytes:
    """Return the tar of a root file system with the machine's busybox and what it links to."""
    _need("busybox", "ldd")
    program = str(Path(str(shutil.which("busybox"))).resolve())
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    # A static one has no libraries.
    libraries = [word for word in said.split() if word.startswith("/")]
    names = subprocess.run(
        [program, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for path, name in [(program, "bin/busybox"), *((p, p[1:]) for p in libraries)]:
            data = Path(path).read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
        for name in set(names) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        shadow = tarfile.TarInfo("etc/shadow")
        shadow.mode = 0o600
        tar.addfile(shadow)
    return tree.getvalue()


def load(engine: Running) -> None:
    """Give the engine its image, which has a variable of its own."""
    client = engine.api()
    changes = ["ENV IMAGES_OWN=1", "ENV PATH=/bin", 'CMD ["sh"]']
    client.import_image_from_data(
        busybox_tree(), repository=IMAGE.partition(":")[0], tag="latest", changes=changes
    )
    client.close()


@contextmanager
def run_docker(*, arguments: Sequence[str] = ()) -> Iterator[Running]:
    """
    Lend a Docker Engine without a network of its own.

    Raises:
        MissingServiceError: There is none on this machine.
    """
    _need("dockerd", "containerd", "runc")
    with _home() as home:
        socket = str(home / "d.sock")
        argv = [
            "dockerd", "--data-root", str(home / "data"), "--exec-root", str(home / "exec"),
            "--pidfile", str(home / "pid"), "-H", f"unix://{socket}",
            "--bridge=none", "--iptables=false", "--ip6tables=false", *arguments,
        ]  # fmt: skip
        with _running(Running("docker", socket, argv, home)) as engine:
            yield engine


@contextmanager
def run_podman() -> Iterator[Running]:
    """
    Lend Podman's service.

    Raises:
        MissingServiceError: There is none on this machine.
    """
    _need("podman", "conmon", "runc")
    with _home() as home:
        socket = str(home / "p.sock")
        (home / "containers.conf").write_text(_CONTAINERS_CONF)
        argv = [
            "podman", "--root", str(home / "storage"), "--runroot", str(home / "run"),
            "--tmpdir", str(home / "tmp"), "system", "service", "--time=0", f"unix://{socket}",
        ]  # fmt: skip
        env = {"CONTAINERS_CONF": str(home / "containers.conf")}
        with _running(Running("podman", socket, argv, home, env)) as engine:
            yield engine


@contextmanager
def _running(engine: Running) -> Iterator[Running]:
    with ExitStack() as stack:
        engine.start()
        stack.callback(engine.stop)
        load(engine)
        yield engine


@contextmanager
def _home() -> Iterator[Path]:
    _sweep()
    # Short: the path of a socket has its limit.
    home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
    try:
        yield home
    finally:
        _clear(home)


def _sweep() -> None:
    """End and remove what killed sessions left."""
    for left in Path("/tmp").glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            _clear(left)


def _clear(home: Path) -> None:
    mark = f"{home}/".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if mark in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
