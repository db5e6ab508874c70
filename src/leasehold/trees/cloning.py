"""
A git repository's tree at one commit, without its history.

`git` itself does the work, with everything off that a repository or a machine could slip in:
no hooks, no filters, no submodules, no configuration, no prompt, no transport but the one in
the URL, and no environment but ours. URLs carry no password. Only the one commit is fetched.

A credential is in no argument, no variable and no file: for https git reads it from a file in
memory, and only for the server of the URL, not for one that it leads to; for ssh an agent of
this one call has the key. A server is always checked: by certificates, or by a key that is
known before.
"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from leasehold.domain.repositories import NO_CREDENTIALS, has_credentials
from leasehold.errors import BadInputError, BlobsUnavailableError, InterruptedCallError
from leasehold.trees.packing import Packed, pack
from leasehold.trees.reading import Limits

_LOOK_S: Final = 0.2
_PATIENCE: Final = re.compile(
    "could not resolve|timed out|connection|unable to access|early eof|rpc failed",
    re.IGNORECASE,
)
"""What git says when another try may help."""

_HOPELESS: Final = re.compile(
    "certificate|returned error: 4|authentication failed", re.IGNORECASE
)
"""What it says when none will, though it sounds alike."""

_COMMONPLACES: Final = frozenset(
    {
        "and the repository exists.",
        "Please make sure you have the correct access rights",
        "fatal: Could not read from remote repository.",
    }
)
"""What git adds to ssh's own words, whatever these were."""

_NO_KEY: Final = 97
_WITH_AGENT: Final = (
    f'ssh-add -q - || exit {_NO_KEY}; "$@"; code=$?; kill "$SSH_AGENT_PID"; exit $code'
)


@dataclass(frozen=True, slots=True)
class Access:
    """How a repository is opened."""

    credential: str | None = field(default=None, repr=False)
    """For https `USER:PASSWORD` or a token, for ssh a private key."""

    known_hosts: str | None = None
    ca_file: Path | None = None
    """Certificates instead of the system's."""


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
    if has_credentials(url):
        raise BadInputError(f"the git URL {NO_CREDENTIALS}")
    if any(ord(letter) <= ord(" ") for letter in url) or (parts.hostname or "").startswith("-"):
        raise BadInputError("a git URL holds no blanks, and its host is a name")
    return url.removeprefix("git+")


def clone(
    url: str,
    ref: str | None,
    target: BinaryIO,
    limits: Limits,
    *,
    access: Access,
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
        fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, ref or "HEAD")
        git.run_remotely(url, access, *fetch)
        commit = git.run("rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
        git.run("checkout", "--quiet", "--detach", commit)
        return pack(git.work, target, limits, ignore=False), commit


_SSH: Final = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oUpdateHostKeys=no"
_SSH_WITH_KEY: Final = " -F none -oIdentityFile=none"


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
        self._place, self.work = place, place / "work"
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
            "GIT_SSH_COMMAND": _SSH,
            "GIT_LFS_SKIP_SMUDGE": "1",
        }
        if agent := os.environ.get("SSH_AUTH_SOCK"):
            self._env["SSH_AUTH_SOCK"] = agent

    def run_remotely(self, url: str, access: Access, *words: str) -> str:
        """Run with what opens the repository."""
        ssh = self._env["GIT_SSH_COMMAND"]
        if access.ca_file is not None:
            self._env["GIT_SSL_CAINFO"] = str(access.ca_file)
        if access.known_hosts is not None:
            known = self._place / "known_hosts"
            known.write_text(access.known_hosts.rstrip("\n") + "\n", encoding="utf-8")
            option = shlex.quote(f"-oUserKnownHostsFile={known}")
            ssh += f" {option} -oGlobalKnownHostsFile=none"
        if access.credential is None:
            self._env["GIT_SSH_COMMAND"] = ssh
            return self.run(*words)
        if urlsplit(url).scheme == "ssh":
            self._env["GIT_SSH_COMMAND"] = ssh + _SSH_WITH_KEY
            return self._run_with_key(access.credential, *words)
        with _in_memory(_login(access.credential)) as handle:
            server = urlsplit(url)._replace(path="", query="", fragment="").geturl()
            # What git asks for is appended: to a comment.
            helper = f"credential.{server}.helper=!cat /proc/self/fd/{handle} #"
            return self.run("-c", helper, *words, keep=(handle,))

    def _run_with_key(self, key: str, *words: str) -> str:
        # The agent's socket lies in our directory, and nobody is asked for a passphrase.
        self._env |= {"TMPDIR": str(self._place), "SSH_ASKPASS_REQUIRE": "never"}
        self._env.pop("SSH_AUTH_SOCK", None)
        agent = ("ssh-agent", "sh", "-c", _WITH_AGENT, "sh")
        return self.run(*words, before=agent, given=key.rstrip("\n") + "\n")

    def run(
        self,
        *words: str,
        before: tuple[str, ...] = (),
        given: str = "",
        keep: tuple[int, ...] = (),
    ) -> str:
        """Run git; `before` is an argv around it, `keep` what it inherits."""
        off = ("core.hooksPath=/dev/null", "core.symlinks=true", "protocol.version=2")
        argv = [*before, "git", *(word for one in off for word in ("-c", one)), *words]
        verb = words[2] if words[0] == "-c" else words[0]
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.work,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=keep,
            )
        except FileNotFoundError:
            raise BadInputError(
                f"this worker has no {argv[0]}: it cannot clone a workspace"
            ) from None
        with process:
            out, err = self._talk(process, verb, given)
        if process.returncode:
            raise _failure(verb, process.returncode, err)
        return out

    def _talk(self, process: "subprocess.Popen[str]", verb: str, given: str) -> tuple[str, str]:
        left: str | None = given
        while True:
            try:
                return process.communicate(left, timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                self._left_s -= _LOOK_S
                left = None
            why = self._stopped() or ("too slow" if self._left_s <= 0 else None)
            if why is not None:
                # Its helpers too: they are of its session.
                os.killpg(process.pid, signal.SIGKILL)
                raise InterruptedCallError(f"git {verb}: {why}")


def _failure(verb: str, code: int, err: str) -> BadInputError | BlobsUnavailableError:
    if code == _NO_KEY:
        return BadInputError(
            "the secret for the git URL is no private key that can be used without a passphrase"
        )
    lines = [line.strip() for line in err.splitlines()]
    lines = [line for line in lines if line and line not in _COMMONPLACES]
    text = f"git {verb}: {(lines[-1:] or [f'exit code {code}'])[0][:300]}"
    if _PATIENCE.search(err) and not _HOPELESS.search(err):
        return BlobsUnavailableError(text)
    return BadInputError(text)


def _login(credential: str) -> str:
    """Return user and password as git's helpers tell them."""
    text = credential.strip("\r\n")
    if not text or any(ord(letter) < ord(" ") for letter in text):
        raise BadInputError(
            "the secret for the git URL must be USER:PASSWORD or a token, in one line"
        )
    user, colon, password = text.partition(":")
    if not colon:
        # Servers that take tokens take any user with them.
        user, password = "git", text
    return f"username={user}\npassword={password}\n"


@contextmanager
def _in_memory(text: str) -> Iterator[int]:
    handle = os.memfd_create("leasehold-login", os.MFD_CLOEXEC)
    try:
        os.write(handle, text.encode())
        yield handle
    finally:
        os.close(handle)
