"""
What an environment may say about its sandboxes, and what this host can keep of it.

A limit is only taken if something here holds it: the kernel per process (`setrlimit`) or a
cgroup. The labels say which: a limit per process is "best effort", since a tree of processes
can use it many times.
"""

import re
from collections.abc import Mapping
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
    variable_refusal,
)

from leasehold_local.cgroups import Limit

_MIB: Final = 1024 * 1024
_MAX: Final = 2**53
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _number(text: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": _MAX, "description": text}


_NUMBERS: Final[Mapping[str, dict[str, Any]]] = {
    "memory_mb": _number("Memory: of all together with a memory cgroup, else of each process."),
    "pids": _number("Processes and threads at once; needs a pids cgroup."),
    "cpu_s": _number("Seconds of processor time of each process."),
    "fsize_mb": _number("Size of each file that a process writes."),
    "nofile": _number("Open files of each process."),
}

SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Host processes in a private directory",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **_NUMBERS,
        "reuse_lease": {
            "type": "boolean",
            "default": True,
            "description": "Whether a later run may get the same directory.",
        },
        "env": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Variables for every command; the run's own win.",
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What this host has for us; looked at once, when the plugin is made."""

    tree: str | None
    memory: Limit | None
    pids: Limit | None
    owner: int | None = None
    """The uid and gid that commands run with, if they are not the worker's."""

    def bases(self) -> set[str]:
        """Return our directory in each hierarchy."""
        limits = [limit.base for limit in (self.memory, self.pids) if limit]
        return set(filter(None, [self.tree, *limits]))

    def check(self, config: Json) -> Validation:
        """Check a config against the schema and against what this host can keep."""
        return check(config, self)

    def group_limits(self, config: Json) -> list[tuple[Limit, int]]:
        """Return every limit that a cgroup keeps for the whole sandbox."""
        return group_limits(config, self)

    def rlimits(self, config: Json) -> list[tuple[str, int]]:
        """Return (name in `resource`, value) of every limit per process."""
        return rlimits(config, self)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=Isolation.NONE,
            cpu=Enforcement.BEST_EFFORT,
            memory=Enforcement.ENFORCED if self.memory else Enforcement.BEST_EFFORT,
            pids=Enforcement.ENFORCED if self.pids else Enforcement.NO,
            disk=Enforcement.NO,
            output=Enforcement.ENFORCED,
            network=frozenset({Network.FULL}),
            suspend=Suspend.DISK,
            native_ttl=NativeTtl.ABSOLUTE,
            survives_worker_exit=True,
            survives_host_reboot=False,
            containment=Containment.TREE if self.tree else Containment.SESSION,
            host_bound=True,
            files=True,
            watch=True,
        )


def check(config: Json, ground: Ground) -> Validation:
    """Check a config against the schema and against what this host can keep."""
    problems = [
        Problem(
            path=str(key),
            code="unknown_key",
            message=f"unknown key {key!r}; known are {', '.join(sorted(SCHEMA['properties']))}",
        )
        for key in config
        if key not in SCHEMA["properties"]
    ]
    for name in _NUMBERS:
        if name in config:
            problems += _check_number(name, config[name])
    if not isinstance(config.get("reuse_lease", True), bool):
        problems.append(
            Problem(path="reuse_lease", code="type", message="must be true or false")
        )
    problems += _check_env(config.get("env", {}))
    if "pids" in config and ground.pids is None:
        text = "this host has no writable pids cgroup, so the limit could not be kept"
        problems.append(Problem(path="pids", code="unsupported", message=text))
    warnings = []
    if "memory_mb" in config and ground.memory is None:
        warnings.append("memory_mb: no writable memory cgroup here, the limit is per process")
    if problems:
        return Validation(problems=tuple(problems), warnings=tuple(warnings))
    normal = {"reuse_lease": True, "env": {}, **config}
    return Validation(warnings=tuple(warnings), config=normal)


def _check_number(name: str, value: object) -> list[Problem]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX:
        return []
    kind = value if isinstance(value, int) else type(value).__name__
    text = f"must be a whole number of at least 1, not {kind}"
    return [Problem(path=name, code="range", message=text)]


def _check_env(env: object) -> list[Problem]:
    if not isinstance(env, Mapping):
        return [Problem(path="env", code="type", message="must be an object of strings")]
    problems = []
    for name, value in env.items():
        refused = variable_refusal(str(name))
        if refused is not None:
            problems.append(Problem(path=f"env.{name}", code="refused", message=refused))
        elif not isinstance(name, str) or not _VARIABLE.match(name):
            text = f"{name!r} is not the name of an environment variable"
            problems.append(Problem(path="env", code="name", message=text))
        elif not isinstance(value, str) or "\0" in value:
            text = "must be a string without NUL"
            problems.append(Problem(path=f"env.{name}", code="type", message=text))
    return problems


def rlimits(config: Json, ground: Ground) -> list[tuple[str, int]]:
    """Return (name in `resource`, value) of every limit that the kernel keeps per process."""
    found = []
    for key, name, unit in (
        ("nofile", "RLIMIT_NOFILE", 1),
        ("cpu_s", "RLIMIT_CPU", 1),
        ("fsize_mb", "RLIMIT_FSIZE", _MIB),
        ("memory_mb", "RLIMIT_AS", _MIB),
    ):
        if key in config and not (key == "memory_mb" and ground.memory):
            found.append((name, int(config[key]) * unit))
    return found


def group_limits(config: Json, ground: Ground) -> list[tuple[Limit, int]]:
    """Return every limit that a cgroup keeps for the whole sandbox."""
    found = []
    if ground.memory and "memory_mb" in config:
        found.append((ground.memory, int(config["memory_mb"]) * _MIB))
    if ground.pids and "pids" in config:
        found.append((ground.pids, int(config["pids"])))
    return found
