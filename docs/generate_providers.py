"""
Write docs/providers.md from what plugins declare and what the conformance suite found.

    python docs/generate_providers.py [NEW_REPORT]

docs/conformance.json is the last full run of every column (`leasehold.provider.conformance.
recording` says how it looks). With NEW_REPORT, the columns of a new run replace theirs; a column
that the new run did not reach is kept as it was, and named. `make matrix` does all of it. A test
fails while the page is not what this would write.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from leasehold.provider.conformance import AREAS, Check, Outcome, all_checks
from leasehold.provider.conformance.recording import Report, read, write
from leasehold.provider.contract import Capabilities, Isolation

TARGET = Path(__file__).with_name("providers.md")
REPORT = Path(__file__).with_name("conformance.json")

INTRODUCTION = """\
<!-- Written by docs/generate_providers.py from docs/conformance.json. Do not edit. -->

# Providers

What each provider declares, and what the conformance suite found when it tried. `make matrix`
runs the suite on every provider whose engine is on the machine and writes this page anew. On a
machine of yours `leasehold providers check KEY` does the same for one. `workers/README.md` says
how to write one.

## What they declare

A capability that is not declared is refused by a config's validation, never silently ignored.
Limits and containment depend on what the host offers (cgroups); here they are as on the machine
where the suite ran.
"""

WORDS = {
    "isolation": "isolation",
    "cpu": "limit: processor",
    "memory": "limit: memory",
    "pids": "limit: processes",
    "disk": "limit: disk",
    "output": "limit: output",
    "network": "network",
    "suspend": "suspend keeps",
    "native_ttl": "own time to live",
    "survives_worker_exit": "survives its worker",
    "survives_engine_restart": "survives its engine's restart",
    "survives_host_reboot": "survives a reboot",
    "containment": "ending reaches",
    "host_bound": "only from its host",
    "lists_by_config": "swept once for each config",
    "supervisor_in_reach": "command reaches its supervisor",
    "files": "put and get",
    "watch": "tells of exits",
}

MATRIX = """
## What the suite found

✓ passed, – does not apply (the number says why), ✗ failed. A column is one plugin, or one
plugin on one engine.
"""

_SIGNS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗"}


class Notes:
    """The reasons why checks do not apply, numbered as they come."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def number(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def render(report: Report) -> str:
    """Return the whole page."""
    lines = [INTRODUCTION, *_declared(report), MATRIX]
    notes = Notes()
    for area in AREAS:
        checks = [one for one in all_checks() if one.area == area]
        lines += [f"### {area}", "", *_head("check", report)]
        lines += [_row(one.sentence, [_cell(c, one, notes) for c in report.values()])
                  for one in checks]  # fmt: skip
        lines.append("")
    lines += ["Why a check does not apply:", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(notes.reasons, 1)]
    return "\n".join([*lines, ""])


def _head(first: str, report: Report) -> list[str]:
    return [_row(first, list(report)), "|---|" + ":-:|" * len(report)]


def _row(first: str, cells: list[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _declared(report: Report) -> list[str]:
    lines = _head("", report)
    lines.append(_row("version", [column["version"] for column in report.values()]))
    # What the code has no words for yet is shown by its name.
    for field in (one.name for one in fields(Capabilities)):
        values = [_value(column["capabilities"], field) for column in report.values()]
        lines.append(_row(WORDS.get(field, field), [_shown(value) for value in values]))
    return lines


def _value(declared: Mapping[str, Any], field: str) -> Any:
    # Without isolation there is nothing between the two, whatever the label says.
    open_ = field == "supervisor_in_reach" and declared.get("isolation") == Isolation.NONE
    return True if open_ else declared.get(field)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "?" if value is None else str(value).replace("_", " ")


def _cell(column: Mapping[str, Any], check: Check, notes: Notes) -> str:
    found = column["checks"].get(check.sentence)
    if found is None:
        return "?"
    sign = _SIGNS.get(Outcome(found["outcome"]))
    return sign or f"–<sup>{notes.number(found['reason'])}</sup>"


def incomplete(column: Mapping[str, Any]) -> list[str]:
    """Return the checks that a column has no result of, and results that are no checks."""
    return sorted({one.sentence for one in all_checks()} ^ set(column["checks"]))


def failures(report: Report) -> list[str]:
    return [
        f"{label}: {name}: {one['reason']}"
        for label, column in report.items()
        for name, one in column["checks"].items()
        if one["outcome"] == Outcome.FAILED
    ]


def main(words: list[str]) -> int:
    report, trouble = read(REPORT), False
    new = read(Path(words[0])) if words else {}
    for label, column in new.items():
        if gaps := incomplete(column):
            print(
                f"NOT TAKEN: {label}: it was not a full run: {len(gaps)} checks, as {gaps[0]!r}"
            )
            trouble = True
        else:
            report[label] = column
    for label in report.keys() - new.keys() if words else ():
        print(f"NOT RUN HERE: {label}: kept as it was recorded before")
    for failure in failures(report):
        print(f"FAILED: {failure}")
        trouble = True
    report = dict(sorted(report.items()))
    write(REPORT, report)
    TARGET.write_text(render(report), encoding="utf-8")
    print(f"{TARGET.name}: {len(report)} columns, {len(all_checks())} checks")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
