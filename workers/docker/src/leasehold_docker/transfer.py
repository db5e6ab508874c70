"""
Files into and out of a sandbox: this side of `caged.py`, which does it.

A path counts from the work directory and never leaves it; that is looked at here, as words, and
kept there, by the kernel. The engine is not asked: what it could do with a read-only root it
does not do alike, and files can be had while it restarts.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

from leasehold.provider import (
    Budget,
    ConfigRejectedError,
    Place,
    SandboxGoneError,
    UnavailableError,
    effect,
)
from leasehold.provider.archive import checked_tree
from leasehold.provider.supervisor import inside

from leasehold_docker.layout import Directory
from leasehold_docker.starting import WORK

_CHUNK: Final = 256 * 1024
_SLICE_S: Final = 0.2
_PLACE: Final = Place(control="", cwd=WORK, root=WORK)


class Cage:
    """One process in the cage of one sandbox."""

    def __init__(self, directory: Directory, owner: tuple[int, int], budget: Budget) -> None:
        self._directory, self._owner, self._budget = directory, owner, budget

    def put(self, path: str, source: BinaryIO, *, tree: bool, mode: int, fence: int) -> None:
        if not tree:
            self._send("put", path, source, mode, fence)
            return
        with checked_tree(source) as checked:
            self._send("unpack", path, checked, mode, fence)

    def get(self, path: str, *, tree: bool) -> Iterator[bytes]:
        process = self._open("pack" if tree else "get", path, 0)
        assert process.stdout is not None
        try:
            first = self._read(process.stdout, 1)
            if first != b"!":
                self._finish(process, path)
            while data := self._read(process.stdout, _CHUNK):
                yield data
            self._finish(process, path)
        finally:
            _end(process)

    def _send(self, verb: str, path: str, source: BinaryIO, mode: int, fence: int) -> None:
        process = self._open(verb, path, mode)
        assert process.stdin is not None
        try:
            with effect(f"docker:{verb}"):
                with suppress(BrokenPipeError):
                    while data := source.read(_CHUNK):
                        # Whoever was stopped in the middle, and overtaken, sends no more.
                        self._directory.install_fence(fence)
                        self._write(process.stdin, len(data).to_bytes(4, "big") + data)
                    self._write(process.stdin, bytes(4))
                with suppress(BrokenPipeError):
                    process.stdin.close()
                self._finish(process, path)
        finally:
            _end(process)

    def _open(self, verb: str, path: str, mode: int) -> "subprocess.Popen[bytes]":
        _, below = inside(_PLACE, path)
        self._budget.check()
        script = str(Path(__file__).parent / "caged.py")
        uid, gid = self._owner
        root = f"{self._directory.disk}/work"
        words = (script, root, str(uid), str(gid), verb, below, f"{mode:o}")
        process = subprocess.Popen(
            (sys.executable, "-I", "-S", "-B", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
        return process

    def _write(self, pipe: IO[bytes], data: bytes) -> None:
        left = memoryview(data)
        while left:
            _, ready, _ = select.select([], [pipe], [], _SLICE_S)
            self._budget.check()
            if ready:
                left = left[pipe.write(left) or 0 :]

    def _read(self, pipe: IO[bytes], limit: int) -> bytes:
        while not select.select([pipe], [], [], _SLICE_S)[0]:
            self._budget.check()
        self._budget.check()
        return pipe.read(limit)

    def _finish(self, process: "subprocess.Popen[bytes]", path: str) -> None:
        """Wait for its end and tell what it told."""
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SLICE_S)
            self._budget.check()
        code = process.returncode
        if code == 0:
            return
        reason = process.stderr.read().decode(errors="replace") if process.stderr else ""
        if self._directory.label() is None:
            raise SandboxGoneError(f"there is no sandbox at {self._directory.path}")
        if code == 3:  # noqa: PLR2004  as in caged.py
            raise ConfigRejectedError(f"{path!r}: {reason}")
        raise UnavailableError(f"{path!r}: {reason.strip()[-300:] or f'exit {code}'}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
