"""
A sandbox is a directory on the target, named after the lease id; its label lies in it.

    <path>/sb-<name>/
        label           "1 <incarnation> <number> <boot id> <uptime> =<deployment> =<lease id>":
                        whose it is, and when it was made, in 1/100 s since the target's boot
        <incarnation>/
            work/       where commands start; their HOME
            tmp/        their TMPDIR
            control/    the supervisor's (see `leasehold.provider.supervisor`)

The files are authoritative, and `sandbox.sh` is all that touches them: each call of the
contract is one script in one trip, so no worker and no connection stands between two effects.
Any number of workers may call; on the target they are processes beside each other, and what
they race for is one `rename`. The incarnation is part of every path that a handle leads to:
whoever comes with an old one finds nothing there.

What if the script dies (the machine, the sshd, the out-of-memory killer)?

- While it makes one: a directory `.new-<name>.<pid>.<incarnation>` that nobody lists. It has
  its label, first fence and deadline before it gets its name, so a name is never without. The
  next acquire of that lease removes it if that process is gone, a destroy in any case.
- Between the name and the answer: the next acquire adopts it.
- In a destroy: before the rename, a sandbox whose commands have ended; after it, a directory
  `.dead-<name>.<incarnation>.<pid>`. Repeating the destroy finishes it, and only "removed" on
  the last line is its success.

Limits, honestly: commands have the rights of the account, so they can reach all of this. After
a crash of the target's machine a young label may be empty: then nothing is adopted or removed
under that name, and a person has to look.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from leasehold.provider import SAFE_PATH, Json, LeaseRef, Owned, Place, UnavailableError
from leasehold.provider.supervisor import answer
from leasehold_ssh.channel import Answer

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")
_NOWHERE: Final = "none"
"""Stands for the incarnation of a sandbox that nobody has a handle of."""


@cache
def script() -> str:
    """Return the text that runs on the target."""
    return (Path(__file__).parent / "sandbox.sh").read_text(encoding="utf-8")


def argv(own: str, supervisor: str, verb: str, *args: str) -> list[str]:
    """Build the argv of one call; no secret is ever part of it."""
    return ["/bin/sh", "-c", own, "leasehold", supervisor, verb, *args]


def name_of(lease_id: str) -> str:
    """Return the sandbox's name: the lease id, or its hash if it is no plain file name."""
    if _PLAIN.match(lease_id):
        return lease_id
    return "h-" + hashlib.sha256(lease_id.encode()).hexdigest()[:40]


def word(text: str) -> str:
    """Write any text as one word that a shell reads as it is."""
    return "=" + quote(text, safe="")


def box(config: Json, lease_id: str) -> str:
    return f"{config['path']}/sb-{name_of(lease_id)}"


def whereabouts(config: Json, lease: LeaseRef) -> list[str]:
    """Return the words with which every verb about one sandbox begins."""
    return [config["path"], name_of(lease.id), word(lease.deployment), word(lease.id)]


def place(config: Json, lease_id: str, incarnation: str | None) -> Place:
    """Say where an incarnation has its things."""
    inside = f"{box(config, lease_id)}/{incarnation or _NOWHERE}"
    work = f"{inside}/work"
    return Place(
        control=f"{inside}/control",
        cwd=work,
        root=work,
        env={
            "PATH": SAFE_PATH,
            "HOME": work,
            "LANG": "C.UTF-8",
            "TMPDIR": f"{inside}/tmp",  # noqa: S108  the sandbox's own
        },
    )


def words(told: Answer, *, least: int) -> list[str]:
    """
    Read an answer of one line and at least so many words.

    Raises:
        ProviderError: The script refused, or its answer is not whole.
    """
    found, rest = answer(*told)
    if found[0] != "ok" or len(found) < least or rest:
        raise UnavailableError("the target's answer was cut short or is not ours")
    return found


def removed(told: Answer) -> None:
    """Read the answer of a destroy."""
    found, rest = answer(*told)
    if found == ["ok"] and rest == b"removed\n":
        return
    answer(0, rest, told.err)  # an error that came after the first line
    raise UnavailableError("the target's answer to a destroy is not ours")


def owned(told: Answer, config: Json, login_name: str) -> Iterator[Owned]:
    """Read the answer of a listing, whole or not at all."""
    _, rest = answer(*told)
    *lines, last, nothing = ["", *rest.decode(errors="replace").split("\n")]
    if (last, nothing) != ("end", ""):
        raise UnavailableError("the target's list of sandboxes was cut short")
    for line in lines:
        match line.split(" "):
            case ["own", folder, incarnation, number, fence, age, lease] if (
                folder == f"sb-{name_of(unquote(lease[1:]))}" and number.isdecimal()
            ):
                yield Owned(
                    handle={"v": 1, "incarnation": incarnation},
                    lease_id=unquote(lease[1:]),
                    lease_number=int(number),
                    fence=int(fence) if fence.isdecimal() else None,
                    age_s=max(0, int(age)) / 100,
                    sandbox_id=f"{login_name}{config['path']}/{folder}",
                )
            case _:
                continue
