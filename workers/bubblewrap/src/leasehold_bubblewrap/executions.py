"""
Executions: what `local` does, with the sandbox's view of the world in the supervisor's spec.

Everything that a supervisor needs is worked out here, by the worker, and handed over in memory:
the supervisor itself only makes system calls.
"""

import os
import posixpath
from typing import Any, Final

from leasehold.provider import Command, ConfigRejectedError, Json, Target, UnavailableError
from leasehold.provider.way_out import listing, program
from leasehold.provider.way_out.door import PORT
from leasehold_local.executions import SAFE_PATH
from leasehold_local.executions import Executions as LocalExecutions
from leasehold_local.sandboxes import Sandboxes
from leasehold_local.spawner import Spawner
from leasehold_local.watching import ExitWatch

from leasehold_bubblewrap import engine, filters, mounts
from leasehold_bubblewrap.config import Ground

_STAGES: Final = ("/mnt", "/media", "/srv", "/tmp")  # noqa: S108 - over which we mount, unseen
_ROOMS: Final = (("work", mounts.WORK), ("home", mounts.HOME))


class Executions(LocalExecutions):
    def __init__(
        self, sandboxes: Sandboxes, spawner: Spawner, watch: ExitWatch, ground: Ground
    ) -> None:
        super().__init__(sandboxes, spawner, watch)
        self._host = ground

    def _inside(self, sandbox: str, cwd: str | None) -> tuple[str, str, dict[str, str]]:
        """Whatever the command names is the sandbox's; the host's files are not there."""
        del sandbox
        if "\0" in (cwd or ""):
            raise ConfigRejectedError("a path cannot hold NUL")
        own = {"HOME": mounts.HOME, "TMPDIR": mounts.TEMPORARY}
        return "", posixpath.join(mounts.WORK, cwd or "."), own

    def _spec(
        self, sandbox: str, target: Target, execution_id: str, command: Command
    ) -> dict[str, Any]:
        config = target.config
        found = engine.known()
        if found.path is None or found.trouble is not None:
            raise UnavailableError(found.trouble or "there is no bwrap")
        binds = tuple(config.get("ro_binds", ()))
        self._check_binds(binds)
        owner = _owner(sandbox)
        stage = _stage(binds) if owner is not None else None
        rooms = [
            (f"{stage}/{name}" if stage else f"{sandbox}/{name}", place)
            for name, place in _ROOMS
        ]
        arguments = mounts.arguments(
            rooms=rooms,
            ro_binds=binds,
            network=config.get("network") == "full",
            tmp_mb=int(config.get("tmp_mb", 256)),
        )
        spec = super()._spec(sandbox, target, execution_id, command)
        if listing.wanted(config):
            told = listing.variables(config).items()
            # Whatever the config or the command says of them wins.
            spec["env"] = {
                os.fsencode(name): os.fsencode(value) for name, value in told
            } | spec["env"]
        return spec | {
            "bwrap": os.fsencode(found.path),
            "path": SAFE_PATH,
            "owner": owner,
            "stage": os.fsencode(stage) if stage else None,
            "rooms": [
                (os.fsencode(f"{sandbox}/{name}"), os.fsencode(name)) for name, _ in _ROOMS
            ],
            "arguments": [os.fsencode(part) for part in arguments],
            "files": [(os.fsencode(place), content) for place, content in mounts.FILES],
            "filter": _filter(on=config.get("seccomp", True)),
            "gate": _gate(config),
        }

    def _check_binds(self, binds: tuple[str, ...]) -> None:
        """Look again at what is shown: a name may lead elsewhere today."""
        for path in binds:
            if why := self._host.why_hidden(path):
                raise ConfigRejectedError(f"ro_binds: {why}")
            if not os.path.exists(path):
                raise ConfigRejectedError(f"ro_binds: {path} is not there on this host")


def _filter(*, on: bool) -> bytes | None:
    if not on:
        return None
    try:
        return filters.filter_of_calls()
    except filters.NoFilterError as error:
        raise UnavailableError(str(error)) from error


def _gate(config: Json) -> dict[str, Any] | None:
    """Return what a gatekeeper needs; None without an allow-list."""
    if not listing.wanted(config):
        return None
    return {
        "argv": [os.fsencode(word) for word in program.argv("handed")],
        "env": {
            os.fsencode(key): os.fsencode(text) for key, text in program.ENVIRONMENT.items()
        },
        "entries": "\n".join(config["allow"]).encode(),
        "port": PORT,
    }


def _owner(sandbox: str) -> int | None:
    """Return whom the sandbox was made for, if that is not us."""
    owner = os.stat(f"{sandbox}/work").st_uid
    return owner if owner != os.geteuid() else None


def _stage(binds: tuple[str, ...]) -> str:
    """Choose a directory that we may cover in a namespace of our own."""
    for path in _STAGES:
        hidden = any(os.path.realpath(one).startswith(f"{path}/") for one in binds)
        if os.path.isdir(path) and not os.path.islink(path) and not hidden:
            return path
    raise UnavailableError(f"none of {', '.join(_STAGES)} can be used to prepare a sandbox")
