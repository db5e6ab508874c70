"""
The results of the suite in a file, for the published matrix of providers and checks.

    LEASEHOLD_CONFORMANCE_REPORT=PATH pytest tests/conformance

Each test enters its own result, from whichever process it runs in: the file is read, changed
and replaced under a lock beside it. It is JSON:

    {LABEL: {"key": .., "version": .., "capabilities": {..},
             "checks": {SENTENCE: {"area": .., "outcome": .., "reason": ..}}}}

A label is a column: the provider's key, or what a test class says if one plugin is tried on
several engines.
"""

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

from leasehold.provider.conformance.catalogue import CheckResult
from leasehold.provider.conformance.harness import Harness
from leasehold.provider.contract import Capabilities, Info

VARIABLE: Final = "LEASEHOLD_CONFORMANCE_REPORT"

Report: TypeAlias = dict[str, dict[str, Any]]


def wanted() -> Path | None:
    """Return the file to write to; None if nobody asked."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


def labels_of(capabilities: Capabilities) -> dict[str, Any]:
    """Return the capabilities as JSON."""
    return {
        name: sorted(map(str, value)) if isinstance(value, frozenset) else value
        for name, value in asdict(capabilities).items()
    }


def info_of(harness: Harness) -> Info:
    provider = harness.provider(harness.deployment)
    try:
        return provider.describe()
    finally:
        provider.close()


def record(path: Path, label: str, info: Info, result: CheckResult) -> None:
    """Enter one result; what stood there of this check before is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = read(path)
        column = report.setdefault(label or info.key, {})
        column |= {
            "key": info.key,
            "version": info.version,
            "capabilities": labels_of(info.capabilities),
        }
        column.setdefault("checks", {})[result.name] = {
            "area": result.area,
            "outcome": result.outcome,
            "reason": result.reason,
        }
        write(path, report)


def read(path: Path) -> Report:
    if not path.exists():
        return {}
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    return report


def write(path: Path, report: Report) -> None:
    new = path.with_suffix(".new")
    text = json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False)
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(path)
