"""
What a hostile command tries, as shell scripts; and what is planted for it to find.

The scripts need sh, cat, find, grep, ls, ln, mv, readlink and stat in the sandbox, and /proc.
What a sandbox does not have, an intruder has not either: nothing is found, the check passes.
Their complaints go to stderr, which nobody reads; a sandbox need not have a /dev/null.
"""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PLACES: Final = r"""
# The root, and each other directory that a process here has as its own or holds open. Another
# root can have the same name, so they are told apart by what they are.
places() {
  seen=' '
  for l in / /dev/shm /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/fd/*; do
    [ -d "$l/" ] || continue
    key=$(stat -Lc %d:%i "$l/") || key=$l
    case $seen in *" $key "*) continue ;; esac
    seen="$seen$key "
    printf '%s\n' "$l/"
  done
}
# Everything below them whose name is $1; programs, devices and the kernel's own hide nothing.
hunt() {
  places | while read -r place; do
    find "$place" -maxdepth 12 \
      '(' -name proc -o -name sys -o -name dev -o -name usr ')' -prune \
      -o -name "$1" -print
  done
}
"""

LOOK_AROUND: Final = r"""
# $1: a file of the host, $2: its directory
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/self/mountinfo
cat "$1"
ls -l "$2"
for p in /proc/[0-9]*; do cat "$p/root$1" "$p/cwd/${1##*/}"; done
exit 0
"""
"""Print all that can be seen of processes, and of one file of the host."""

FIND: Final = (
    _PLACES
    + r"""
hunt "$1"
exit 0
"""
)
"""Print each path by which a name can be found."""

FORGE: Final = (
    _PLACES
    + r"""
# $1: our own execution's id. Whatever supervises us keeps something under this name.
echo begun
# Only ours: where the provider keeps nothing apart, other sandboxes of this machine are not to
# be harmed by a check.
hunt "$1" | while read -r own; do printf '%s\n' "$own" "$own/../../fence"; done |
while read -r found; do
  [ -d "$found" ] || continue
  printf 'found %s\n' "$found"
  printf 'exited 0 - 0 0 0 0 1\n' >"$found/forged" || continue
  mv -f "$found/forged" "$found/exit"
  ln -s by-supervisor "$found/go"
  printf 'wrote %s\n' "$found"
done
exit 7
"""
)
"""Look for the supervisor's directory and write an exit record of one's own into it."""

END_ALL: Final = r"""
# $1: the pid namespace of the host. Our parent is no process of this place if its number is 0,
# and that would be ourselves.
[ "$PPID" -le 1 ] || kill -9 "$PPID"
# Never where that is the whole machine.
here=$(readlink /proc/self/ns/pid) && [ "$here" != "$1" ] && kill -9 -1
echo survived
exit 7
"""
"""Kill the parent, and then whatever can be reached."""

READ_FILES: Final = (
    _PLACES
    + r"""
# $1: a text that only we should not know, in two parts, so that it is not found in this script
places | while read -r place; do
  find "$place" -maxdepth 12 '(' -name proc -o -name sys -o -name dev -o -name usr ')' -prune \
      -o -type f -size -64 -exec grep -l "$1$2" '{}' +
done
exit 0
"""
)
"""Print the files that hold a text."""

TRESPASS: Final = r"""
# $1: a file of the host, $2: its directory, $3: a name, $4: a process of the host
echo changed >>"$1"
for d in "$2" / /etc /usr /usr/bin /var/tmp /tmp /dev/shm; do true >"$d/$3"; done
kill -9 "$4"
exit 0
"""
"""Write where the host's files are, and kill one of its processes."""


@dataclass(frozen=True, slots=True)
class Plants:
    """Secrets of the host, and where they were planted."""

    secrets: tuple[str, ...]
    file: Path
    beside: str
    """The name of another file in the same directory, which is never told."""

    process: subprocess.Popen[bytes]

    def seen_in(self, text: bytes) -> list[str]:
        """Return the kinds of place whose secret stands in `text`."""
        kinds = ("environment of the worker", "environment of a process", "argv", "file")
        pairs = zip(kinds, self.secrets, strict=True)
        return [kind for kind, secret in pairs if secret.encode() in text]


@contextmanager
def planted(scratch: Path) -> Iterator[Plants]:
    """Plant secrets in our environment, in a process's environment and argv, and in a file."""
    ours, theirs, word, text = secrets = tuple(
        f"s3cret-{kind}-{os.urandom(8).hex()}" for kind in ("ours", "theirs", "word", "text")
    )
    name = "LEASEHOLD_CONFORMANCE_CANARY"
    file = scratch / f"host-{os.urandom(4).hex()}"
    file.write_text(text)
    beside = scratch / f"beside-{os.urandom(4).hex()}"
    beside.touch()
    # Anyone may read it who gets there: not its mode keeps it, but the sandbox.
    file.chmod(0o666)
    os.environ[name] = ours
    process = subprocess.Popen(
        ["sh", "-c", "read -r word", "sh", word],
        stdin=subprocess.PIPE,
        cwd=scratch,
        env={"PATH": os.environ.get("PATH", os.defpath), name: theirs},
    )
    try:
        yield Plants(secrets, file, beside.name, process)
    finally:
        del os.environ[name]
        process.kill()
        process.communicate()
        file.unlink()
        beside.unlink()


def command_lines() -> list[bytes]:
    """Return the command line of every process on this host."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:  # noqa: PTH123  thousands of them
                found.append(line.read())
        except OSError:
            continue
    return found


@contextmanager
def watched(secrets: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Look at all command lines again and again; yields a list of those that hold a secret."""
    found: list[bytes] = []
    over = threading.Event()

    def look() -> None:
        while True:
            found.extend(
                line for line in command_lines() if any(one in line for one in secrets)
            )
            if over.wait(0.001):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
