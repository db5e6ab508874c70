"""
What an environment may say about its containers, and the labels of what they can hold.

The schema is closed: what cannot be enforced has no key. There is no `disk_mb`, since neither
engine can hold it on every file system, and no root: the command's user is a number from 1 on,
and never one that keeps the sandbox. An allow-list is no rule of the engine: a gatekeeper keeps
it, alike on both.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from leasehold.provider import (
    Budget,
    Capabilities,
    ConfigRejectedError,
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
)
from leasehold.provider.way_out import listing
from leasehold.provider.way_out.door import UID as GATEKEEPER_UID

GUARD_UID: Final = 64741
"""Who runs process 1; any number that no image and no command uses."""

CAPABILITIES: Final = Capabilities(
    isolation=Isolation.CONTAINER,
    cpu=Enforcement.ENFORCED,
    memory=Enforcement.ENFORCED,
    pids=Enforcement.ENFORCED,
    disk=Enforcement.NO,
    output=Enforcement.ENFORCED,
    network=frozenset({Network.NONE, Network.FULL, Network.ALLOW_LIST}),
    suspend=Suspend.DISK,
    native_ttl=NativeTtl.ABSOLUTE,
    survives_worker_exit=True,
    survives_host_reboot=False,
    survives_engine_restart=True,
    containment=Containment.TREE,
    host_bound=True,
    files=True,
    watch=True,
)

SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Hardened containers on this host's Docker or Podman",
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {
            "type": "string",
            "minLength": 1,
            "description": "Image of the container; needs /bin/sh, cat and sleep.",
        },
        "pull": {
            "type": "string",
            "enum": ["never", "missing", "always"],
            "default": "missing",
            "description": "When to fetch the image from its registry.",
        },
        "network": {
            "type": "string",
            "enum": ["none", "full", "allow_list"],
            "default": "none",
            "description": "none: only the loopback; full: the engine's default bridge; "
            "allow_list: only what allow names, through an HTTP proxy on the loopback.",
        },
        "allow": listing.SCHEMA,
        "memory_mb": {
            "type": "integer",
            "minimum": 16,
            "maximum": 2**22,
            "default": 1024,
            "description": "Memory of all together, without swap.",
        },
        "pids": {
            "type": "integer",
            "minimum": 4,
            "maximum": 2**22,
            "default": 256,
            "description": "Processes and threads at once.",
        },
        "cpus": {
            "type": "number",
            "minimum": 0.01,
            "maximum": 4096,
            "description": "Processors, as a fraction; without it, all of the host's.",
        },
        "tmp_mb": {
            "type": "integer",
            "minimum": 1,
            "maximum": 2**20,
            "default": 64,
            "description": "Size of /tmp, which is memory and ends with a suspension.",
        },
        "user": {
            "type": "string",
            "pattern": "^[1-9][0-9]{0,8}(:[1-9][0-9]{0,8})?$",
            "default": "1000:1000",
            "description": "User and group of commands, as numbers; never root.",
        },
        "reuse_lease": {
            "type": "boolean",
            "default": True,
            "description": "Whether a later run may get the same container.",
        },
    },
}


def check(config: Json, *, budget: Budget) -> Validation:
    """Check a config against the schema and against what the schema cannot say."""
    budget.check()
    answer = check_schema(SCHEMA, config)
    if answer.ok and (
        problems := (*_of_the_user(answer.config), *listing.problems(answer.config))
    ):
        return Validation(problems=problems)
    return answer


def _of_the_user(config: Json) -> Iterator[Problem]:
    for number in {GUARD_UID, GATEKEEPER_UID}.intersection(owner(config)):
        text = f"{number} is the number of one of the sandbox's own processes"
        yield Problem(path="user", code="reserved", message=text)


def owner(config: Json) -> tuple[int, int]:
    """Return user and group of the commands."""
    user, _, group = str(config["user"]).partition(":")
    return int(user), int(group or user)


def full(config: Json, budget: Budget) -> Json:
    """
    Return the config with its defaults.

    Raises:
        ConfigRejectedError: It is not valid; says where.
    """
    checked = check(config, budget=budget)
    if not checked.ok:
        problem = checked.problems[0]
        raise ConfigRejectedError(f"{problem.path}: {problem.message}")
    return checked.config


def plugin_version() -> str:
    try:
        return version("leasehold-docker")
    except PackageNotFoundError:
        return "0"
