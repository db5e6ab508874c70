"""
What a run may wait for before it starts: other runs, and how each of them has to end.

The others are there already when it is submitted, so there can be no circle. An end is final
(P8), and a retry is a run of its own: it changes nothing for who waits for the first.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, model_validator

from leasehold.domain.lifecycle import RUN_ENDS, RunStatus
from leasehold.domain.specs import Name, Spec, parse

MAX_AFTER: Final = 100


class Outcome(StrEnum):
    """How a run has to end for another one to start after it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Any end but a success: failed, cancelled, timed out, or never started itself."""

    ANY = "any"

    def fits(self, status: str) -> bool:
        """Return whether a run that ended so is what was waited for."""
        assert status in RUN_ENDS, status
        if self is Outcome.ANY:
            return True
        return (self is Outcome.SUCCEEDED) == (status == RunStatus.SUCCEEDED)


class After(Spec):
    """One run to start after; also given as text, ``ID`` or ``ID:OUTCOME``."""

    run: Name
    """Its id; of the same tenant."""

    outcome: Outcome = Outcome.SUCCEEDED

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        run, colon, outcome = value.partition(":")
        return {"run": run, **({"outcome": outcome} if colon else {})}


def _different(items: tuple[After, ...]) -> tuple[After, ...]:
    if len({item.run for item in items}) != len(items):
        raise ValueError("must name each run once")
    return items


Afters = Annotated[tuple[After, ...], Field(max_length=MAX_AFTER), AfterValidator(_different)]


class _Given(Spec):
    after: Afters = ()


def parse_after(value: Any) -> tuple[After, ...]:
    """
    Return what a run is to start after, from outside data.

    Raises:
        BadInputError: Names what is wrong with which of them.
    """
    return parse(_Given, {"after": value}).after


def as_given(items: Sequence[After]) -> list[dict[str, str]]:
    """Return it as JSON has it."""
    return [item.model_dump(mode="json") for item in items]
