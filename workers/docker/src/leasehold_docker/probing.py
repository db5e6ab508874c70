"""Probing: is there an engine, and can it keep what is declared?"""

import os

from leasehold.provider import Budget, Health, HealthState, UnavailableError

from leasehold_docker.engine import Engine


def probe(engine: Engine, root: str, budget: Budget) -> Health:
    if not os.path.exists(engine.path):
        text = f"no engine's socket at {engine.path}"
        return Health(state=HealthState.UNDETECTED, summary=text)
    if os.geteuid() != 0:
        text = "the worker must be root: it ends commands by their control groups"
        return Health(state=HealthState.UNHEALTHY, summary=text)
    try:
        info = engine.info(budget)
    except UnavailableError as error:
        return Health(state=HealthState.UNHEALTHY, summary=str(error))
    options = " ".join(info.get("SecurityOptions") or ())
    for word in ("rootless", "userns"):
        if f"name={word}" in options:
            text = f"engines with {word} are not supported: users differ inside and outside"
            return Health(state=HealthState.UNHEALTHY, summary=text)
    name = info.get("OperatingSystem") or "unknown"
    text = f"engine {info.get('ServerVersion')} at {engine.path}"
    return Health(
        state=HealthState.HEALTHY,
        summary=text,
        details={
            "socket": engine.path,
            "engine": str(info.get("ServerVersion")),
            "system": str(name),
            "live_restore": bool(info.get("LiveRestoreEnabled")),
            "cgroup": str(info.get("CgroupVersion", "1")),
            "root": root,
        },
    )
