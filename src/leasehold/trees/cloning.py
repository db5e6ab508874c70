"""
A git repository's tree at one commit, without its history.

`git` itself does the work, with everything off that a repository or a machine could slip in:
no hooks, no filters, no submodules, no configuration, no prompt, no transport but the one in
the URL, and no environment but ours. URLs carry no password. Only the one commit is fetched.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from leasehold.errors import BadInputError, BlobsUnavailableError, InterruptedCallError
from leasehold.trees.packing import Packed, pack
from leasehold.trees.reading import Limits

_LOOK_S: Final = 0.2
_PATIENCE: Final = re.compile(
    "could not resolve|timed out|connection|unable to access|early eof|rpc failed",
    re.IGNORECASE,
)
"""What git says when another try may help."""


def check_url(url: str, *, schemes: frozenset[str]) -> str:
    """
    Return the URL as git takes it.

    Raises:
        BadInputError: It is of another kind, or carries a password.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.removeprefix("git+")
    if scheme not in schemes:
        allowed = ", ".join(f"{name}://" for name in sorted(schemes))
        raise BadInputError(
            f"a git URL begins with one of {allowed} here (LEASEHOLD_GIT_SCHEMES)"
        )
    if parts.password is not None or (parts.username and scheme != "ssh"):
        raise BadInputError(
            "a git URL carries no credentials: they would stand in rows and logs"
        )
    if any(ord(letter) <= ord(" ") for letter in url) or (parts.hostname or "").startswith("-"):
        raise BadInputError("a git URL holds no blanks, and its host is a name")
    return url.removeprefix("git+")


def clone(
    url: str,
    ref: str | None,
    target: BinaryIO,
    limits: Limits,
    *,
    stopped: Callable[[], str | None],
    timeout_s: float,
) -> tuple[Packed, str]:
    """
    Write the packed tree of a ref into `target`; return it and its commit.

    Args:
        url: As `check_url` returned it.
        stopped: Says why to stop, if so.

    Raises:
        BadInputError: There is no such repository or ref.
        BlobsUnavailableError: It cannot be reached now.
        InterruptedCallError: We were told to stop.
    """
    with tempfile.TemporaryDirectory(prefix="leasehold-git-") as place:
        scheme = urlsplit(url).scheme
        git = _Git(Path(place), scheme=scheme, stopped=stopped, timeout_s=timeout_s)
        git.run("init", "--quiet", ".")
        git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, ref or "HEAD")
        commit = git.run("rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
        git.run("checkout", "--quiet", "--detach", commit)
        return pack(git.work, target, limits, ignore=False), commit


class _Git:
    """Calls git in one fresh directory."""

    def __init__(
        self,
        place: Path,
        *,
        scheme: str,
        stopped: Callable[[], str | None],
        timeout_s: float,
    ) -> None:
        self.work = place / "work"
        self.work.mkdir()
        self._stopped, self._left_s = stopped, timeout_s
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(place),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": scheme,
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_LFS_SKIP_SMUDGE": "1",
        }
        if agent := os.environ.get("SSH_AUTH_SOCK"):
            self._env["SSH_AUTH_SOCK"] = agent

    def run(self, *words: str) -> str:
        off = ("core.hooksPath=/dev/null", "core.symlinks=true", "protocol.version=2")
        argv = ["git", *(word for one in off for word in ("-c", one)), *words]
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.work,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError:
            raise BadInputError("this worker has no git: it cannot clone a workspace") from None
        with process:
            out, err = self._talk(process, words[0])
        if process.returncode:
            said = err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            text = f"git {words[0]}: {said[0][:300]}"
            if _PATIENCE.search(err):
                raise BlobsUnavailableError(text)
            raise BadInputError(text)
        return out

    def _talk(self, process: "subprocess.Popen[str]", verb: str) -> tuple[str, str]:
        while True:
            try:
                return process.communicate(timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                self._left_s -= _LOOK_S
            why = self._stopped() or ("too slow" if self._left_s <= 0 else None)
            if why is not None:
                # Its helpers too: they are of its session.
                os.killpg(process.pid, signal.SIGKILL)
                raise InterruptedCallError(f"git {verb}: {why}")
