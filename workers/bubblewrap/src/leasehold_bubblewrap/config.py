"""
What an environment may say about its sandboxes, and what this host can keep of it.

A limit is taken only if a cgroup of this host, v2 or v1, keeps it for the whole sandbox; else
the capability says "no" and the config is refused. A sandbox without a system call filter has
to be asked for by name.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from leasehold.provider import (
    Capabilities,
    Containment,
    Enforcement,
    Isolation,
    Json,
    NativeTtl,
    Network,
    Problem,
    Suspend,
    Validation,
    check_schema,
    variable_refusal,
)
from leasehold.provider.way_out import listing
from leasehold_local import cgroups
from leasehold_local import config as local
from leasehold_local.cgroups import Limit

from leasehold_bubblewrap import engine, filters

_MIB: Final = 1024 * 1024
_MAX: Final = 2**40
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

WHOLE: Final = frozenset({"/", "/etc", "/home", "/root", "/var", "/usr"})
"""May not be shown as they are; a directory below may, if it is asked for."""

NEVER: Final = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/work", "/home/sandbox")
"""May not be shown, nor anything in it."""


def _number(text: str, *, least: float = 1, kind: str = "integer", **more: Any) -> Json:
    return {"type": kind, "minimum": least, "maximum": _MAX, "description": text, **more}


SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Commands behind bubblewrap",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "memory_mb": _number("Memory of all processes together, what is in /tmp included."),
        "pids": _number("Processes and threads at once; a command needs four beside its own."),
        "cpus": _number("Processors' worth of time, such as 0.5.", least=0.01, kind="number"),
        "tmp_mb": _number("Size of /tmp, which is in memory, for each command.", default=256),
        "nofile": _number("Open files of each process."),
        "fsize_mb": _number("Size of each file that a process writes."),
        "network": {
            "enum": ["none", "full", "allow_list"],
            "type": "string",
            "default": "none",
            "description": "none: only a loopback of its own; full: the host's whole network; "
            "allow_list: only what allow names, through an HTTP proxy on the loopback.",
        },
        "allow": listing.SCHEMA,
        "ro_binds": {
            "type": "array",
            "items": {"type": "string", "pattern": "^/[^\\u0000]*$"},
            "default": [],
            "description": "Directories and files of the host's to show, read-only.",
        },
        "seccomp": {
            "type": "boolean",
            "default": True,
            "description": "Refuse the system calls that reach past namespaces.",
        },
        "reuse_lease": {
            "type": "boolean",
            "default": True,
            "description": "Whether a later run may get the same directory.",
        },
        "env": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "default": {},
            "description": "Variables for every command; the run's own win.",
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground(local.Ground):
    """What this host has for us; looked at once, when the plugin is made."""

    cpu: Limit | None
    root: str
    """Where the sandboxes lie: never shown to any of them."""

    shut_in: str | None = None
    """Why there is no network namespace, without which an allow-list would be no wall."""

    def bases(self) -> set[str]:
        own = {self.cpu.base} if self.cpu else set()
        # Two arguments: a dataclass with slots is another class than the one `super()` means.
        return local.Ground.bases(self) | own

    def capabilities(self) -> Capabilities:
        def kept(limit: Limit | None) -> Enforcement:
            return Enforcement.ENFORCED if limit else Enforcement.NO

        return Capabilities(
            isolation=Isolation.PROCESS,
            cpu=kept(self.cpu),
            memory=kept(self.memory),
            pids=kept(self.pids),
            disk=Enforcement.NO,
            output=Enforcement.ENFORCED,
            network=frozenset({Network.NONE, Network.FULL, *self._listed()}),
            suspend=Suspend.DISK,
            native_ttl=NativeTtl.ABSOLUTE,
            survives_worker_exit=True,
            survives_host_reboot=False,
            containment=Containment.TREE,
            host_bound=True,
            files=True,
            watch=True,
        )

    def check(self, config: Json) -> Validation:
        """Check a config against the schema and against what this host can keep."""
        checked = check_schema(SCHEMA, config)
        problems = [*checked.problems, *self._unkept(config)]
        if checked.ok:
            problems += [*_variables(config), *self._binds(config), *_filtering(checked.config)]
            problems += listing.problems(checked.config)
        if problems:
            return Validation(problems=tuple(problems))
        warnings: tuple[str, ...] = ()
        if not checked.config["seccomp"]:
            warnings = ("seccomp is off: commands reach the whole of the kernel",)
        return Validation(warnings=warnings, config=checked.config)

    def _listed(self) -> tuple[Network, ...]:
        return () if self.shut_in else (Network.ALLOW_LIST,)

    def limits(self) -> dict[str, Limit | None]:
        """Return how each limit that a config may ask for is kept."""
        return {"memory_mb": self.memory, "pids": self.pids, "cpus": self.cpu}

    def _unkept(self, config: Json) -> Iterator[Problem]:
        for name, limit in self.limits().items():
            if name in config and limit is None:
                text = "this host has no writable cgroup for it, so it could not be kept"
                yield Problem(path=name, code="unsupported", message=text)
        if listing.wanted(config) and self.shut_in:
            text = f"this host has no network namespace that would keep it: {self.shut_in}"
            yield Problem(path="network", code="unsupported", message=text)

    def _binds(self, config: Json) -> Iterator[Problem]:
        for number, path in enumerate(config.get("ro_binds", ())):
            if why := self.why_hidden(path):
                yield Problem(path=f"ro_binds.{number}", code="forbidden", message=why)

    def why_hidden(self, path: str) -> str | None:
        """Say why a path of the host's is not shown to a sandbox; None if it may be."""
        if os.path.normpath(path) != path:
            return "must be a plain absolute path, without '..', '//' or a '/' at its end"
        for seen in {path, os.path.realpath(path)}:
            if seen in WHOLE or any(_within(seen, one) for one in NEVER):
                return f"{seen} is never shown to a sandbox"
            if _within(seen, self._ours()) or _within(self._ours(), seen):
                return f"{seen} would show the sandboxes of others, or Leasehold's own files"
        return None

    def _ours(self) -> str:
        """Return the directory of all that is Leasehold's, as far as we know it."""
        root = os.path.realpath(self.root)
        above, name = os.path.split(os.path.dirname(root))
        return above if name == "sandboxes" else root

    def group_limits(self, config: Json) -> list[tuple[Limit, int]]:
        found = local.Ground.group_limits(self, config)
        if self.cpu and "cpus" in config:
            found.append((self.cpu, round(config["cpus"] * cgroups.CPU_PERIOD)))
        return found

    def rlimits(self, config: Json) -> list[tuple[str, int]]:
        """Return the limits per process; a crash leaves no dump for the host to look at."""
        found = [("RLIMIT_CORE", 0)]
        for key, name, unit in (
            ("nofile", "RLIMIT_NOFILE", 1),
            ("fsize_mb", "RLIMIT_FSIZE", _MIB),
        ):
            if key in config:
                found.append((name, int(config[key]) * unit))
        return found


def look_around(name: str, root: str) -> Ground:
    """See which cgroups this host lets us use, and as whom commands run."""
    return Ground(
        tree=cgroups.find_tree(name),
        memory=cgroups.find_limit(name, "memory"),
        pids=cgroups.find_limit(name, "pids"),
        cpu=cgroups.find_limit(name, "cpu"),
        owner=engine.known().owner,
        root=root,
        shut_in=engine.known().trouble,
    )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _variables(config: Json) -> Iterator[Problem]:
    for name, value in config.get("env", {}).items():
        if (why := variable_refusal(name)) is not None:
            yield Problem(path=f"env.{name}", code="refused", message=why)
        elif not _VARIABLE.match(name):
            text = f"{name!r} is not the name of an environment variable"
            yield Problem(path="env", code="name", message=text)
        elif "\0" in value:
            yield Problem(path=f"env.{name}", code="type", message="must be without NUL")


def _filtering(config: Json) -> Iterator[Problem]:
    if config["seccomp"]:
        try:
            filters.filter_of_calls()
        except filters.NoFilterError as error:
            yield Problem(path="seccomp", code="unsupported", message=str(error))
