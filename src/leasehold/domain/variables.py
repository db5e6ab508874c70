"""
The environment variables that nobody may give to a command, and why.

Between the one who asks and the command stand programs of ours: a shell that supervises,
`setsid`, the tool that makes the sandbox, the engine's own init. Each of them is started with
the command's variables or passes them on. What makes the dynamic loader, the C library or a
shell run something *before* the program that was asked for would therefore run it in them: in
part outside of the sandbox, with the worker's rights.

Only that is refused. A variable that a language or a tool reads (``PYTHONPATH``,
``NODE_OPTIONS``, ``PERL5OPT``) concerns the command alone, which may be anything anyhow; so do
variables of the C library that only change what it says or how it stores.

Nothing is taken away by this: a command that needs one sets it itself, inside of the sandbox,
``env LD_LIBRARY_PATH=lib ./program``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """Names, and beginnings of names, that are refused for one reason."""

    reason: str
    names: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        return name in self.names or name.startswith(self.beginnings)


RULES: Final = (
    Rule(
        "the dynamic loader obeys it in every program on the way to the command",
        beginnings=("LD_",),
    ),
    Rule(
        "the C library loads code or writes files for it in every program on the way to the"
        " command",
        names=frozenset(
            {
                "GCONV_PATH",
                "GETCONF_DIR",
                "GLIBC_TUNABLES",
                "LOCPATH",
                "MALLOC_TRACE",
                "NLSPATH",
            }
        ),
    ),
    Rule(
        "a shell on the way to the command executes what it names or holds",
        names=frozenset({"BASH_ENV", "ENV", "PS4"}),
        beginnings=("BASH_FUNC_",),
    ),
    Rule(
        "it changes how a shell on the way to the command reads its script",
        names=frozenset({"BASHOPTS", "CDPATH", "GLOBIGNORE", "IFS", "SHELLOPTS"}),
    ),
    Rule(
        "it is a shell's own and cannot be set in one",
        names=frozenset({"BASH_VERSINFO", "EUID", "PPID", "UID"}),
    ),
)


def refusal(name: str) -> str | None:
    """Say why a variable of this name is not taken; None if it is."""
    for rule in RULES:
        if rule.matches(name):
            return (
                f"the variable {name} is refused: {rule.reason};"
                f" set it inside of the sandbox instead, as in: env {name}=... COMMAND"
            )
    return None


def first_refusal(env: Iterable[str]) -> tuple[str, str] | None:
    """Return the first name of an environment that is refused, and why."""
    for name in env:
        if (why := refusal(name)) is not None:
            return name, why
    return None
