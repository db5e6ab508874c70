"""
Output of commands as coloured text: SGR escape sequences to spans, all others dropped.

What a command writes is anybody's: it may hold markup, half a sequence, a megabyte without a
line break. Nothing here gives markup; the template escapes each text.

`static/output.js` does the same for what comes later, from the state that this one ends in.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

LINE_CHARS: Final = 16 * 1024
"""Shown of a line; the download has it whole."""

_SEQUENCE: Final = re.compile(
    r"\x1b\[([0-9;:]*)m"  # colours, the one kind that is shown
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?=\n)"
)
_PAINTS: Final = (
    (range(30, 38), False, 0),
    (range(40, 48), True, 0),
    (range(90, 98), False, 8),
    (range(100, 108), True, 8),
)
"""Codes, whether they are for the background, and the first colour."""

_MORE: Final = (38, 48)


@dataclass(frozen=True, slots=True)
class Look:
    """How text looks that comes next."""

    colour: str = ""
    background: str = ""
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False

    @property
    def classes(self) -> str:
        named = [f"c{self.colour}"] if self.colour else []
        named += [f"b{self.background}"] if self.background else []
        flags = (("bold", self.bold), ("dim", self.dim), ("italic", self.italic))
        named += [name for name, on in (*flags, ("underline", self.underline)) if on]
        return " ".join(named)


_PLAIN: Final = Look()


def spans(text: str) -> Iterator[tuple[str, str]]:
    """Return pieces of text with the classes of their looks, the first plain."""
    look, at = _PLAIN, 0
    for found in _SEQUENCE.finditer(text):
        if found.start() > at:
            yield look.classes, text[at : found.start()]
        at = found.end()
        if found[1] is not None:
            look = after(look, found[1])
    if at < len(text):
        yield look.classes, text[at:]


def after(look: Look, codes: str) -> Look:
    """Return how text looks after an SGR sequence with these codes."""
    numbers = [int(code[:4] or 0) if code[:4].isdecimal() else 0
               for code in codes.replace(":", ";").split(";")]  # fmt: skip
    while numbers:
        number = numbers.pop(0)
        if number in _MORE:
            # Of 256 or of all colours: only the first sixteen are shown as they are.
            kind = numbers.pop(0) if numbers else 0
            taken, numbers = numbers[: 3 if kind == 2 else 1], numbers[3 if kind == 2 else 1 :]  # noqa: PLR2004
            if kind == 5 and taken and taken[0] < 16:  # noqa: PLR2004
                look = _painted(look, str(taken[0]), ground=number == _MORE[1])
            continue
        look = _with(look, number)
    return look


def _with(look: Look, number: int) -> Look:
    for numbers, ground, first in _PAINTS:
        if number in numbers:
            return _painted(look, str(number - numbers.start + first), ground=ground)
    changes: dict[int, dict[str, object]] = {
        1: {"bold": True}, 2: {"dim": True}, 3: {"italic": True}, 4: {"underline": True},
        22: {"bold": False, "dim": False}, 23: {"italic": False}, 24: {"underline": False},
        39: {"colour": ""}, 49: {"background": ""},
    }  # fmt: skip
    if number == 0:
        return _PLAIN
    return replace(look, **changes.get(number, {}))  # type: ignore[arg-type]  # of its fields


def _painted(look: Look, colour: str, *, ground: bool) -> Look:
    return replace(look, background=colour) if ground else replace(look, colour=colour)


def shortened(text: str) -> str:
    """Return text whose lines are short enough for a browser, and say what was left out."""
    lines = (_overwritten(line) for line in text.split("\n"))
    return "\n".join(
        line
        if len(line) <= LINE_CHARS
        else f"{line[:LINE_CHARS]} … ({len(line) - LINE_CHARS} more characters in the download)"
        for line in lines
    )


def _overwritten(line: str) -> str:
    """Return a line without what its carriage returns wrote over, as progress bars do."""
    return line.rstrip("\r").rpartition("\r")[2]
