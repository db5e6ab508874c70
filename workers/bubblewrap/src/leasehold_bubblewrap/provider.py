"""
The plugin: `local`'s sandboxes and executions, each command behind bubblewrap.

A sandbox is a directory of the host's, as with `local`: label, fences, deadline, claims and
output are outside of what a command sees. A bubblewrap sandbox in the kernel's sense, with its
namespaces, stands around each execution for as long as it runs. So nothing has to be kept alive
between two commands, suspending costs nothing, and no command meets the processes of another.
"""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from leasehold.provider import Budget, ConfigRejectedError, Health, HealthState, Info, Json
from leasehold_local.executions import Executions as LocalExecutions
from leasehold_local.provider import LocalProvider
from leasehold_local.sandboxes import ROOMS
from leasehold_local.sandboxes import Sandboxes as LocalSandboxes
from leasehold_local.spawner import Spawner

from leasehold_bubblewrap import config as configs
from leasehold_bubblewrap import engine, filters, mounts
from leasehold_bubblewrap.executions import Executions

KEY: Final = "bubblewrap"
_MODULE: Final = "leasehold_bubblewrap.supervisor"


class Sandboxes(LocalSandboxes):
    """Directories whose rooms belong to whom the commands are."""

    def remote_cwd(self, path: str) -> str:
        del path
        return mounts.WORK

    def _furnish(self, path: str) -> None:
        super()._furnish(path)
        owner = self.ground.owner
        if owner is not None:
            for room in ROOMS:
                if os.lstat(f"{path}/{room}").st_uid == os.geteuid():
                    os.chown(f"{path}/{room}", owner, owner, follow_symlinks=False)


class BubblewrapProvider(LocalProvider):
    _ground: configs.Ground

    def __init__(
        self,
        *,
        root: Path,
        deployment: str,
        host_id: str,
        ground: configs.Ground | None = None,
        source: Path | None = None,
        search: str | None = None,
    ) -> None:
        """
        Make the plugin.

        `ground`, `source` and `search` are for tests: another host, an instrumented supervisor,
        where the probe looks for `bwrap`.
        """
        self._search = search
        name = self.name_of_groups(deployment, root)
        super().__init__(
            root=root,
            deployment=deployment,
            host_id=host_id,
            ground=ground or configs.look_around(name, str(root)),
            source=source,
        )

    def _parts(
        self, root: str, deployment: str, host_id: str, source: Path | None
    ) -> tuple[LocalSandboxes, Spawner, LocalExecutions]:
        sandboxes = Sandboxes(root, deployment, host_id, self._ground)
        spawner = Spawner(source or Path(__file__).parent.parent, module=_MODULE)
        return (
            sandboxes,
            spawner,
            Executions(sandboxes, spawner, self._watch, self._ground),
        )

    def describe(self) -> Info:
        return Info(
            key=KEY,
            version=_version(),
            capabilities=self._ground.capabilities(),
            config_schema=configs.SCHEMA,
        )

    def probe(self, config: Json, *, budget: Budget) -> Health:
        """Let `bwrap` make an empty sandbox: nothing else tells whether the host allows it."""
        budget.check()
        found = engine.look(self._search)
        if found.path is None:
            return Health(state=HealthState.UNDETECTED, summary=found.trouble or "no bwrap")
        details: dict[str, Any] = {"bwrap": found.path, "version": found.version}
        if found.trouble is not None:
            return Health(state=HealthState.UNHEALTHY, summary=found.trouble, details=details)
        details["uid"] = os.geteuid() if found.owner is None else found.owner
        details |= {
            name: "none" if limit is None else "v2" if limit.v2 else "v1"
            for name, limit in self._ground.limits().items()
        }
        try:
            filters.filter_of_calls()
            details["seccomp"] = "on"
        except filters.NoFilterError as error:
            details["seccomp"] = str(error)
            if config.get("seccomp", True):
                return Health(state=HealthState.UNHEALTHY, summary=str(error), details=details)
        below = super().probe(config, budget=budget)
        if below.state is not HealthState.HEALTHY:
            return below
        return Health(
            state=HealthState.HEALTHY,
            summary=f"bubblewrap {found.version}, commands as uid {details['uid']}",
            details={**below.details, **details},
        )


def _version() -> str:
    try:
        return version("leasehold-bubblewrap")
    except PackageNotFoundError:
        return "0"


def from_settings(settings: Mapping[str, Any]) -> BubblewrapProvider:
    """
    Build the plugin.

    Raises:
        ConfigRejectedError: A setting is missing or the root is not an absolute path.
    """
    missing = [name for name in ("root", "deployment", "host_id") if not settings.get(name)]
    if missing:
        raise ConfigRejectedError(f"the bubblewrap provider needs {', '.join(missing)}")
    root = Path(settings["root"])
    if not root.is_absolute():
        raise ConfigRejectedError(f"root must be an absolute path, not {root}")
    return BubblewrapProvider(
        root=root, deployment=settings["deployment"], host_id=settings["host_id"]
    )
