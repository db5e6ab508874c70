"""
Checks: a limit that is declared holds; one that is not declared is refused.

The suite finds a limit in a config by its name: `memory_mb`, `pids`, `cpus`, `cpu_s`,
`disk_mb`, `network`. A provider that calls it otherwise is not checked here, and needs tests of
its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from leasehold.provider.conformance.catalogue import check, posix
from leasehold.provider.conformance.harness import Case, Done, NotCheckedError, must
from leasehold.provider.contract import Command, Enforcement, ExitCause, Network

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("cpus", "cpu_s"),
    "memory": ("memory_mb",),
    "pids": ("pids",),
    "disk": ("disk_mb",),
}
_MEMORY_MB: Final = 64
_PIDS: Final = 12
_LONG: Final = timedelta(seconds=20)


def _must_refuse(case: Case, name: str, value: object) -> None:
    wrong = {**case.harness.config, name: value}
    answer = case.provider.validate(wrong, budget=case.budget())
    must(
        any(one.path.split(".")[0] == name for one in answer.problems),
        f"{name}: {value!r} is not declared, and not named as a problem: {answer}",
    )


def _limited(case: Case, kind: str, name: str, value: int) -> Case:
    """Return a case whose sandbox has the limit; its config may hold others as before."""
    declared: Enforcement = getattr(case.info.capabilities, kind)
    if declared is not Enforcement.ENFORCED:
        raise NotCheckedError(f"{kind} is not declared as enforced, but {declared}")
    properties: Mapping[str, Any] = case.info.config_schema.get("properties", {})
    if name not in properties:
        raise NotCheckedError(f"{kind} is enforced, but a config has no {name}")
    other = case.another()
    other.harness = replace(case.harness, config={**case.harness.config, name: value})
    answer = other.provider.validate(other.harness.config, budget=case.budget())
    must(answer.ok, f"{name}: {value} is refused: {answer.problems}")
    other.acquire()
    return other


def _run(case: Case, *argv: str) -> Done:
    return case.run_command(Command(argv=argv, timeout=_LONG, grace=timedelta(0)))


@check()
def a_limit_that_is_not_declared_is_refused(case: Case) -> None:
    for kind, names in _NAMES.items():
        if getattr(case.info.capabilities, kind) is Enforcement.NO:
            for name in names:
                _must_refuse(case, name, 1000)


@check()
def a_network_that_is_not_declared_is_refused(case: Case) -> None:
    for network in set(Network) - case.info.capabilities.network:
        _must_refuse(case, "network", str(network))


@check(posix)
def an_enforced_memory_limit_holds(case: Case) -> None:
    limited = _limited(case, "memory", "memory_mb", _MEMORY_MB)
    must(_run(limited, "true").exit.code == 0, "what is small works")
    # One process that asks for all at once, so that its own end tells.
    greedy = ("dd", "if=/dev/zero", "of=/dev/null", f"bs={4 * _MEMORY_MB}M", "count=1")
    ended = _run(limited, *greedy).exit
    must(ended.code != 0, f"it got four times the limit: {ended}")
    must(
        ended.cause is ExitCause.OOM or ended.code is not None,
        f"a kill for lack of memory is told as one: {ended}",
    )
    must(_run(limited, "true").exit.code == 0, "and the sandbox works afterwards")


@check(posix)
def an_enforced_pids_limit_holds(case: Case) -> None:
    limited = _limited(case, "pids", "pids", _PIDS)
    must(_run(limited, "sh", "-c", "true; true").exit.code == 0, "a few processes work")
    # Each that could be started leaves its name.
    script = (
        f'i=0; while [ $i -lt {4 * _PIDS} ]; do i=$((i+1)); (: >"p$i"; sleep 5) & done; wait'
    )
    _run(limited, "sh", "-c", f"({script}) 2>/dev/null; true")
    started = limited.run_command(limited.shell("ls | grep -c ^p")).stdout
    must(0 < int(started) < 2 * _PIDS, f"{started!r} processes at once; the limit is {_PIDS}")
