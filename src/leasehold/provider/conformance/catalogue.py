"""The list of all checks, how they are selected, and how they are run."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Final, TypeAlias

from leasehold.provider.conformance.harness import (
    Case,
    ConformanceError,
    Harness,
    NotCheckedError,
)
from leasehold.provider.contract import (
    Containment,
    Info,
    Isolation,
    NativeTtl,
    Network,
    Suspend,
)

Need: TypeAlias = Callable[[Harness, Info], str | None]
"""Says why a check does not apply, or None."""

Body: TypeAlias = Callable[[Case], None]

AREAS: Final = (
    "contract",
    "idempotency",
    "crash",
    "fences",
    "execution",
    "ends",
    "output",
    "files",
    "lifetime",
    "ownership",
    "limits",
    "network",
    "isolation",
)
"""Each is a module beside this one."""


def posix(harness: Harness, _info: Info) -> str | None:
    return None if harness.posix_commands else "needs real commands"


def files(_harness: Harness, info: Info) -> str | None:
    return None if info.capabilities.files else "files are not declared"


def suspend(_harness: Harness, info: Info) -> str | None:
    declared = info.capabilities.suspend is not Suspend.NONE
    return None if declared else "suspend is not declared"


def native_ttl(_harness: Harness, info: Info) -> str | None:
    declared = info.capabilities.native_ttl is not NativeTtl.NONE
    return None if declared else "a native time to live is not declared"


def whole_tree(_harness: Harness, info: Info) -> str | None:
    declared = info.capabilities.containment is Containment.TREE
    return None if declared else "containment reaches only the session"


def watch(_harness: Harness, info: Info) -> str | None:
    return None if info.capabilities.watch else "watch is not declared"


def no_network(_harness: Harness, info: Info) -> str | None:
    declared = info.capabilities.network == {Network.NONE}
    return None if declared else "a network is declared"


def allow_list(_harness: Harness, info: Info) -> str | None:
    if Network.ALLOW_LIST not in info.capabilities.network:
        return "an allow-list is not declared"
    return None if info.capabilities.host_bound else "its sandboxes are not on this host"


def no_root_of_its_own(_harness: Harness, info: Info) -> str | None:
    plain = info.capabilities.isolation is Isolation.NONE
    return None if plain else "its whole file system is the sandbox's"


def isolated(_harness: Harness, info: Info) -> str | None:
    plain = info.capabilities.isolation is Isolation.NONE
    return "no isolation is declared: one trust domain with its host" if plain else None


def no_kernel_of_its_own(_harness: Harness, info: Info) -> str | None:
    own = info.capabilities.isolation is Isolation.VM
    return "the kernel is the sandbox's own" if own else None


def supervisor_out_of_reach(_harness: Harness, info: Info) -> str | None:
    reached = info.capabilities.supervisor_in_reach
    return "the supervisor is declared to be in the command's reach" if reached else None


def without(need: Need) -> Need:
    """Select the providers that do not declare it."""

    def turned(harness: Harness, info: Info) -> str | None:
        return None if need(harness, info) else "declared, and checked elsewhere"

    return turned


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold; its name is a sentence."""

    area: str
    body: Body
    needs: tuple[Need, ...]

    @property
    def name(self) -> str:
        return self.body.__name__

    @property
    def sentence(self) -> str:
        return self.name.replace("_", " ")


_checks: list[Check] = []


def check(*needs: Need) -> Callable[[Body], Body]:
    """Enter a function into the catalogue."""

    def enter(body: Body) -> Body:
        _checks.append(Check(body.__module__.rpartition(".")[2], body, needs))
        return body

    return enter


def all_checks() -> tuple[Check, ...]:
    """Return every check, in the order of the areas."""
    for area in AREAS:
        import_module(f"leasehold.provider.conformance.{area}")
    return tuple(sorted(_checks, key=lambda one: AREAS.index(one.area)))


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    name: str
    area: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0


def run_check(one: Check, harness: Harness) -> CheckResult:
    """Run one check; whatever the plugin does becomes a result."""
    began = time.monotonic()
    outcome, reason = Outcome.PASSED, ""
    try:
        with Case(harness) as case:
            why = next((why for need in one.needs if (why := need(harness, case.info))), None)
            if why is not None:
                raise NotCheckedError(why)  # noqa: TRY301  the case is still to be closed
            one.body(case)
    except NotCheckedError as error:
        outcome, reason = Outcome.SKIPPED, str(error)
    except ConformanceError as error:
        outcome, reason = Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        outcome, reason = Outcome.FAILED, f"raised {type(error).__name__}: {error}"
    return CheckResult(
        one.sentence, one.area, outcome, reason, round(time.monotonic() - began, 3)
    )


def iter_checks(
    harness: Harness, *, areas: Iterable[str] | None = None
) -> Iterator[CheckResult]:
    """Run the checks one by one, for a caller that shows them as they come."""
    wanted = set(areas or AREAS)
    for one in all_checks():
        if one.area in wanted:
            yield run_check(one, harness)


def run_checks(harness: Harness, *, areas: Iterable[str] | None = None) -> list[CheckResult]:
    """Run all checks, or those of some areas."""
    return list(iter_checks(harness, areas=areas))
