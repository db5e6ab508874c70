"""
A run's history as bars on a line of time: its wait, each step, its lease; pure.

A step that starts again without an end was handed over: its worker died or lost its claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from leasehold.domain.lifecycle import RUN_ENDS

WIDTH: Final = 1000
"""Of the whole line, in units of the drawing."""

_LEAST: Final = 4
_SENT: Final = "waits for a worker"
_BEGUN: Final = {
    "run.queued": "queued",
    "run.running": _SENT,
    "run.parked": "parked",
}
_ENDED: Final = {
    "run.queued": ("parked", _SENT),
    "run.running": ("queued",),
    "run.parked": ("queued", _SENT),
    **{f"run.{status}": ("queued", "parked", _SENT) for status in RUN_ENDS},
}
"""What a run waits for, and which events end that."""


@dataclass(slots=True)
class Bar:
    """One thing that took time; `end` is None while it goes on."""

    name: str
    start: str
    end: str | None = None
    outcome: str = "goes on"
    note: str = ""
    seconds: float = 0.0
    x: int = 0
    width: int = _LEAST


def _at(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


def of(run: Mapping[str, Any], *, now: str) -> list[Bar]:
    """Return the bars of a run, in the order in which they began."""
    bars = _bars(run["events"])
    _measure(bars, now=now)
    return bars


class _Drawing:
    """The bars so far, and which of them are open."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []
        self._open: dict[str, Bar] = {}

    def begin(self, name: str, at: str) -> None:
        self.end(name, at, "handed over", "it began again: its worker died or lost its claim")
        self._open[name] = Bar(name, at)
        self.bars.append(self._open[name])

    def end(self, name: str, at: str, outcome: str = "done", note: str = "") -> None:
        if (bar := self._open.pop(name, None)) is not None:
            bar.end, bar.outcome, bar.note = at, outcome, note


def _bars(events: Sequence[Mapping[str, Any]]) -> list[Bar]:
    drawing = _Drawing()
    for event in events:
        name, at = event["name"], event["at"]
        for waited in _ENDED.get(name, ()):
            drawing.end(waited, at)
        if name in _BEGUN:
            drawing.begin(_BEGUN[name], at)
        noun, _, what = name.partition(".")
        step, _, phase = what.partition(".")
        if noun != "step":
            continue
        if phase == "started":
            drawing.end(_SENT, at)
            drawing.begin(step, at)
        else:
            outcome = "failed" if phase == "failed" else "done"
            drawing.end(step, at, outcome, _note(event["data"]))
    return drawing.bars


def _note(data: Mapping[str, Any]) -> str:
    return str(data.get("message") or data.get("code") or data.get("reason") or "")


def _measure(bars: Sequence[Bar], *, now: str) -> None:
    if not bars:
        return
    first = _at(bars[0].start)
    last = max(_at(bar.end or now) for bar in bars)
    whole = max((last - first).total_seconds(), 0.001)
    for bar in bars:
        begun = (_at(bar.start) - first).total_seconds()
        bar.seconds = max(0.0, (_at(bar.end or now) - _at(bar.start)).total_seconds())
        bar.x = min(round(begun / whole * WIDTH), WIDTH - _LEAST)
        bar.width = max(_LEAST, min(round(bar.seconds / whole * WIDTH), WIDTH - bar.x))
