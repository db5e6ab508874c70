"""
Write docs/states.md from the arrows and sentences of `leasehold.domain.lifecycle`.

    python docs/generate_states.py

A test fails while the file is not what this would write.
"""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from leasehold.domain import lifecycle as life

TARGET = Path(__file__).with_name("states.md")


@dataclass(frozen=True)
class Machine:
    """One noun: its statuses, its arrows, and the status that its rows begin in."""

    title: str
    kind: type[StrEnum]
    moves: Mapping[Any, frozenset[Any]]
    first: StrEnum


MACHINES = (
    Machine("Run", life.RunStatus, life.RUN_MOVES, life.RunStatus.QUEUED),
    Machine("Lease", life.LeaseStatus, life.LEASE_MOVES, life.LeaseStatus.ACQUIRING),
    Machine(
        "Execution",
        life.ExecutionStatus,
        life.EXECUTION_MOVES,
        life.ExecutionStatus.STARTING,
    ),
    Machine(
        "Environment",
        life.EnvironmentStatus,
        life.ENVIRONMENT_MOVES,
        life.EnvironmentStatus.ACTIVE,
    ),
    Machine("Tenant", life.TenantStatus, life.TENANT_MOVES, life.TenantStatus.ACTIVE),
    Machine("Schedule", life.ScheduleStatus, life.SCHEDULE_MOVES, life.ScheduleStatus.ACTIVE),
    Machine("Delivery", life.DeliveryStatus, life.DELIVERY_MOVES, life.DeliveryStatus.PENDING),
    Machine("Worker", life.WorkerStatus, life.WORKER_MOVES, life.WorkerStatus.STARTING),
    Machine("Session", life.SessionStatus, life.SESSION_MOVES, life.SessionStatus.LIVE),
)

INTRODUCTION = """\
<!-- Written by docs/generate_states.py from src/leasehold/domain/lifecycle.py. Do not edit. -->

# Statuses and arrows

Every status in the system, what it means and where it can go. These arrows are the only ones:
each move is an `UPDATE … WHERE status IN (…)` made from the same table, with its event in the
same transaction. What nothing leaves is final.
"""


def render() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *map(_section, MACHINES)])


def sentences(kind: type[StrEnum]) -> dict[str, str]:
    """Return what the source says below each member."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    member = ""
    for line in node.body:
        match line:
            case ast.Assign(targets=[ast.Name()], value=ast.Constant(value=str(value))):
                member = value
            case ast.Expr(value=ast.Constant(value=str(text))) if member:
                found[member] = " ".join(text.split())
    return found


def _section(machine: Machine) -> str:
    said = sentences(machine.kind)
    lines = [f"## {machine.title}", "", inspect.getdoc(machine.kind) or "", ""]
    lines += ["```mermaid", "stateDiagram-v2", f"    [*] --> {machine.first}"]
    for status in machine.kind:
        lines += [f"    {status} --> {to}" for to in _ordered(machine, status)]
        if not machine.moves[status]:
            lines.append(f"    {status} --> [*]")
    lines += ["```", "", "| status | what it means | goes to |", "|---|---|---|"]
    for status in machine.kind:
        targets = ", ".join(f"`{to}`" for to in _ordered(machine, status)) or "—"
        lines.append(f"| `{status}` | {said[status.value]} | {targets} |")
    return "\n".join([*lines, ""])


def _ordered(machine: Machine, status: StrEnum) -> list[StrEnum]:
    return [to for to in machine.kind if to in machine.moves[status]]


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
