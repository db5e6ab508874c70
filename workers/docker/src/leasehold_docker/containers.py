"""
The container of a lease: what it is made of, and its life.

It does nothing by itself: process 1 is `guard.sh`, which keeps the time to live. Commands come
in by the engine's exec, as another user. So one container outlives many commands, and stopping
and starting it is what suspension is.

Hardened, always: no capability at all and no way to gain one, the engine's default seccomp
filter, a read-only root, nobody is root, and limits on processes and memory. Writable are the
work and home directories (the host's disk, kept in a suspension) and /tmp (memory). The pipes
of starts are mounted read-only, which keeps names and files and lets pipes be used.

Ours is what carries our labels: a container is adopted, started, stopped or removed only after
its deployment, lease and incarnation were compared, and then by the engine's own id.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from leasehold.provider import (
    Budget,
    ConfigRejectedError,
    Json,
    LeaseRef,
    SandboxGoneError,
    UnavailableError,
    boot_time,
)

from leasehold_docker import groups
from leasehold_docker.config import GUARD_UID
from leasehold_docker.engine import Engine
from leasehold_docker.layout import Directory, Label, boot_id
from leasehold_docker.starting import INSIDE, text_of

_MARK: Final = "leasehold"
_MIB: Final = 1024 * 1024
_SPARE_PIDS: Final = 4
"""Process 1, its sleep, and the wrapper of a command with its reader."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running container, as written down when it was made ready."""

    container_id: str
    groups: groups.Groups
    variables: tuple[str, ...]
    """Names that image and engine set, which no command shall have."""

    pid: int = 0
    began: str = ""
    """Its process 1 and the engine's word on when that started; together they are one start."""

    def text(self) -> str:
        return json.dumps(
            {
                "container_id": self.container_id,
                "tree": self.groups.tree,
                "memory": self.groups.memory,
                "variables": self.variables,
                "pid": self.pid,
                "began": self.began,
            }
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A container with our deployment's label."""

    container_id: str
    lease_id: str
    lease_number: int
    incarnation: str
    age_s: float


class Containers:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def name(self, directory: Directory) -> str:
        return f"{_MARK}-{directory.name}"

    def find(
        self, directory: Directory, label: Label, budget: Budget
    ) -> Mapping[str, Any] | None:
        """
        Return the sandbox's container; None if there is none.

        Raises:
            UnavailableError: Its name is taken by one that is not ours; it is left alone.
        """
        seen = self.engine.container(self.name(directory), budget)
        if seen is None:
            return None
        labels = seen["Config"].get("Labels") or {}
        ours = (label.deployment, label.lease_id, label.incarnation)
        if tuple(labels.get(f"{_MARK}.{key}") for key in _IDENTITY) != ours:
            text = f"the name {self.name(directory)} is taken by a container that is not ours"
            raise UnavailableError(text, retryable=False)
        return seen

    def make_ready(
        self, directory: Directory, label: Label, lease: LeaseRef, config: Json, budget: Budget,
        *, known: bool,
    ) -> Running:  # fmt: skip
        """
        Find or create the container, start it, and see that it is ready.

        Raises:
            SandboxGoneError: It is `known` and is not there; nothing was created.
        """
        running = self.running(directory)
        if running is not None:
            return running
        seen = self.find(directory, label, budget)
        if seen is None:
            if known:
                raise SandboxGoneError(f"the container of lease {lease.id} is gone")
            self._provide_image(config, budget)
            spec = _spec(directory, label, lease, config)
            self.engine.create(self.name(directory), spec, budget)
            seen = self.find(directory, label, budget)
        if seen is None:
            raise UnavailableError(f"the container of lease {lease.id} was removed meanwhile")
        if not seen["State"]["Running"]:
            budget.check()
            self.engine.start(seen["Id"], budget)
            seen = self.find(directory, label, budget)
        if seen is None or not seen["State"]["Running"]:
            raise UnavailableError(f"the container of lease {lease.id} ended at once")
        return self._write_down(directory, seen)

    def _provide_image(self, config: Json, budget: Budget) -> None:
        image, policy = config["image"], config["pull"]
        there = self.engine.has_image(image, budget)
        if policy == "always" or (policy == "missing" and not there):
            self.engine.pull(image, budget)
        elif not there:
            text = f"image {image} is not on this host, and pull is {policy!r}"
            raise ConfigRejectedError(text)

    def _write_down(self, directory: Directory, seen: Mapping[str, Any]) -> Running:
        pid = seen["State"]["Pid"]
        variables = (one.partition("=")[0] for one in seen["Config"].get("Env") or ())
        running = Running(
            seen["Id"],
            groups.of_process(pid),
            tuple(variables),
            pid,
            str(seen["State"].get("StartedAt", "")),
        )
        directory.replace(directory.running_file, running.text(), 0o600)
        return running

    def running(self, directory: Directory) -> Running | None:
        """Return the running container by the host's own knowledge; None: ask the engine."""
        try:
            with open(directory.running_file, encoding="utf-8") as file:
                data = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        own = groups.Groups(data["tree"], data["memory"])
        if not groups.alive(own):
            return None
        # An older plugin wrote no process; it knew no allow-list, which alone needs it.
        return Running(
            data["container_id"],
            own,
            tuple(data["variables"]),
            data.get("pid", 0),
            data.get("began", ""),
        )

    def stop(self, directory: Directory, label: Label, budget: Budget) -> None:
        """Stop it; raises `SandboxGoneError` if it is not there."""
        seen = self.find(directory, label, budget)
        if seen is None:
            raise SandboxGoneError(f"the container of lease {label.lease_id} is gone")
        if seen["State"]["Running"]:
            self.engine.stop(seen["Id"], budget)

    def remove_all(
        self, deployment: str, lease_id: str, incarnation: str | None, budget: Budget
    ) -> None:
        """Remove what carries the lease's labels: one incarnation, or all of them."""
        for found in self.owned(deployment, budget, lease_id=lease_id):
            if incarnation in (None, found.incarnation):
                self.engine.remove(found.container_id, budget)

    def owned(
        self, deployment: str, budget: Budget, *, lease_id: str | None = None
    ) -> Iterator[Found]:
        """Yield the containers of our deployment, from their labels alone."""
        wanted = [f"{_MARK}.deployment={deployment}"]
        if lease_id is not None:
            wanted.append(f"{_MARK}.lease={lease_id}")
        for one in self.engine.containers(wanted, budget):
            labels = one.get("Labels") or {}
            same = labels.get(f"{_MARK}.deployment") == deployment
            if not same or lease_id not in (None, labels.get(f"{_MARK}.lease")):
                continue
            boot, _, made = labels.get(f"{_MARK}.made", "").partition(" ")
            made_s = float(made) if boot == boot_id() else 0.0
            yield Found(
                container_id=one["Id"],
                lease_id=labels.get(f"{_MARK}.lease", ""),
                lease_number=int(labels.get(f"{_MARK}.number", 0)),
                incarnation=labels.get(f"{_MARK}.incarnation", ""),
                age_s=max(0.0, boot_time() - made_s),
            )


_IDENTITY: Final = ("deployment", "lease", "incarnation")


def _spec(
    directory: Directory, label: Label, lease: LeaseRef, config: Json
) -> Mapping[str, Any]:
    memory = config["memory_mb"] * _MIB
    labels = {
        "deployment": label.deployment,
        "lease": label.lease_id,
        "incarnation": label.incarnation,
        "number": str(label.lease_number),
        "made": f"{label.boot_id} {label.made_at_boot_s}",
        "tenant": lease.tenant_id,
        "environment": lease.environment_id,
    }
    host: dict[str, Any] = {
        # With an allow-list there is no network either: see `egress`.
        "network_mode": "bridge" if config["network"] == "full" else "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,mode=1777,size={config['tmp_mb']}m"},  # noqa: S108  inside
        "binds": [f"{directory.io}:{INSIDE}:ro", f"{directory.disk}:/sandbox:rw"],
        "pids_limit": config["pids"] + _SPARE_PIDS,
        "mem_limit": memory,
        "memswap_limit": memory,
        "ipc_mode": "private",
        "restart_policy": {"Name": "no"},
        "log_config": {"Type": "none", "Config": {}},
        "init": False,
    }
    if "cpus" in config:
        host["nano_cpus"] = round(config["cpus"] * 1_000_000_000)
    return {
        "host": host,
        "container": {
            "image": config["image"],
            "entrypoint": ["/bin/sh", "-c", text_of("guard.sh"), "leasehold", INSIDE],
            "command": [],
            "user": f"{GUARD_UID}:{GUARD_UID}",
            "working_dir": "/",
            "hostname": "sandbox",
            "labels": {f"{_MARK}.{key}": value for key, value in labels.items()},
            "healthcheck": {"test": ["NONE"]},
            "stop_signal": "SIGTERM",
        },
    }
