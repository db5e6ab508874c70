"""
Which points the source has: found by reading its syntax, so that none can be forgotten.

A point's name is the first argument of ``effect``, ``point`` or ``Database.write``. Where the
name is computed, its fixed parts must match; the step in it stands for every step.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import leasehold
import leasehold_fake_plugin
import leasehold_local
from leasehold.domain.lifecycle import Step

ELSEWHERE: Final = {
    "commit.session.start": "an agent's life: test_real_stack, and the tests of the agent",
    "commit.session.beat": "as above",
    "commit.session.end": "as above",
    "commit.session.expire": "test_stale_holders expires sessions",
    "commit.worker.draining": "test_real_stack drains",
    "commit.worker.prove": "one row of a host, said again by its next worker: test_adverts",
    "commit.drain.renewing": "test_real_stack drains",
    "commit.drain.renewed": "test_real_stack drains",
    "commit.drain.cancel": "up --cancel-on-exit, in the tests of the agent",
    "commit.clock.host_lost": "test_stale_holders lets a host vanish",
    "commit.abandon": "test_lost_answers and test_stale_holders: a claim is given up alive",
    "commit.beat.unsure": "test_lost_answers: only a lost answer leads there",
    "local:kill_supervisor": "the provider's own tests: a supervisor that does not answer",
    "git.clone": "tests/workspaces: a clone is repeated from nothing",
    "commit.clock.unsent": "test_broker: a broker that is away",
    "commit.clock.pace": "tests/time: a wall clock that is set",
    "commit.sweep.lost": "the sweep's own tests: it decides nothing that a run waits for",
    "provider.sweep": "as above",
    "commit.sweep.alarm": "tests/reconcile: nothing goes on after it",
    "commit.sweep.take_in": "tests/reconcile",
    "commit.sweep.answer": "tests/reconcile: a report for a person",
    "commit.enqueue.admit": "doors/test_enqueue: killed before it, the clock admits the run",
    "commit.report.artifact": "tests/api: who had no answer sends the file again",
    "commit.secrets.rotate": "test_6_secrets: repeated until nothing is left to do",
    "commit.webhook.unsigned": "tests/webhooks: a host whose keys do not fit puts off",
    "commit.schema": "a migration; the store's tests",
    "commit.{name}": "the pattern of all the others, in store.database",
    "{name}": "seams.effect itself",
}
"""Points that no story passes, and who does."""

_PACKAGES: Final = (leasehold, leasehold_local, leasehold_fake_plugin)
_SKIPPED: Final = {"demo.py", "seams.py", "cli", "api", "conformance", "simulation"}
"""Demonstration, doors of people and programs, tests, simulator: nothing recovers there."""


def of_source() -> set[str]:
    """Return the names of all effects in the engine and in the providers that we test."""
    found: set[str] = set()
    for package in _PACKAGES:
        assert package.__file__ is not None
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            if not _SKIPPED & set(path.relative_to(root).parts):
                found.update(_names(ast.parse(path.read_text())))
    return found


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        first = node.args[0]
        if name == "effect" or (name == "write" and _is_database(called)):
            prefix = "commit." if name == "write" else ""
            for text in _texts(first):
                yield prefix + text


def _is_database(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and "database" in ast.unparse(called.value)


def _texts(node: ast.expr) -> Iterator[str]:
    """Return what a name may be: a step in it stands for each of them."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = [
            part.value if isinstance(part, ast.Constant) else "{step}" for part in node.values
        ]
        for step in Step:
            yield "".join(map(str, parts)).replace("{step}", step.value)


def _bare(names: set[str]) -> set[str]:
    return {re.sub(r":(before|after)$", "", name) for name in names}


def unreached(wanted: set[str], reached: set[str]) -> set[str]:
    return wanted - _bare(reached) - set(ELSEWHERE)


def stale_exceptions(wanted: set[str], reached: set[str]) -> set[str]:
    """Return exceptions for points that are gone, or that a story does reach."""
    patterns = {name for name in ELSEWHERE if "{" in name}
    return {
        name
        for name in set(ELSEWHERE) - patterns
        if name not in wanted or name in _bare(reached)
    }
