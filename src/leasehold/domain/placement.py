"""
Which hosts will do: labels that hosts carry, and what environments and runs require of them.

Pure. A host fits if it carries every required label with exactly the required value. What an
environment requires and what a run requires must both hold, so they may not contradict.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Labels: TypeAlias = Mapping[str, str]


def fits(labels: Labels, requires: Labels) -> bool:
    """Return whether a host with these labels will do."""
    return all(labels.get(name) == value for name, value in requires.items())


def conflicts(environment: Labels, run: Labels) -> list[str]:
    """Return the names of labels of which two values are required."""
    return sorted(name for name in run if environment.get(name, run[name]) != run[name])


def words(labels: Labels) -> str:
    """Return labels as they are typed, in the order of their names."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def nowhere(provider: str, requires: Labels, there: Sequence[tuple[str, Labels]]) -> str:
    """
    Say that no host will do.

    Args:
        there: Name and labels of each host that serves the provider now.
    """
    has = "; ".join(f"{name}: {words(labels) or 'no labels'}" for name, labels in there)
    return f"no live host that serves {provider} has {words(requires)}; hosts have: {has}"
