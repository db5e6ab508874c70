"""
Looking at many commands of one target in few trips.

A poll of one sandbox costs a channel, a shell and half a dozen forks: for a thousand running
commands that is seconds of a processor. So the items of one login are asked for together, by
one script for up to `_TOGETHER` of them that looks at each with the supervisor's own words.
Some such calls run at once; each is for itself if it fails.

The parts of an answer stand between lines with a mark that is made anew for each call, so what
a command printed cannot be taken for the next item's state, and a file that shrinks under the
script's hands damages its own item only.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from leasehold.provider import (
    Polled,
    PollItem,
    ProviderError,
    UnavailableError,
)
from leasehold.provider.supervisor import answer, parse_item
from leasehold_ssh.channel import Answer

_TOGETHER: Final = 64


class Survey:
    """One script's worth of items."""

    def __init__(self, items: Sequence[PollItem], controls: Sequence[str]) -> None:
        self.items = items
        self.mark = os.urandom(12).hex()
        self.stdin = "".join(
            f"{item.execution_id} {item.stdout_offset} {item.stderr_offset} {control}\n"
            for item, control in zip(items, controls, strict=True)
        ).encode(errors="surrogateescape")

    def read(self, told: Answer | ProviderError) -> Iterator[Polled]:
        """Yield an answer for each item, in order."""
        if isinstance(told, ProviderError):
            for item in self.items:
                yield Polled(execution_id=item.execution_id, error=told)
            return
        # What stands before the first mark is nobody's, what follows the last one too.
        parts = told.out.split(f"\n{self.mark}\n".encode())[1:-1]
        for index, item in enumerate(self.items):
            yield _read(item, parts[index] if index < len(parts) else b"", told)


def surveys(items: Sequence[PollItem], controls: Sequence[str]) -> list[Survey]:
    """Divide the items of one login."""
    return [
        Survey(items[at : at + _TOGETHER], controls[at : at + _TOGETHER])
        for at in range(0, len(items), _TOGETHER)
    ]


def _read(item: PollItem, part: bytes, told: Answer) -> Polled:
    try:
        if not part.startswith(b"item "):
            answer(told.rc, part, told.err)
        polled, rest = parse_item(item, part)
    except ProviderError as error:
        return Polled(execution_id=item.execution_id, error=error)
    if polled is None or rest:
        cut = UnavailableError("the answer to a poll was cut short")
        return Polled(execution_id=item.execution_id, error=cut)
    return polled
