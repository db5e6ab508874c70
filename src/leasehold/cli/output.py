"""What goes to stdout: JSON alone, or tables for people. Colours only on a terminal."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_COLOURS: Final = {
    "succeeded": "green",
    "ready": "green",
    "active": "green",
    "healthy": "green",
    "running": "cyan",
    "queued": "yellow",
    "parked": "yellow",
    "releasing": "yellow",
    "draining": "yellow",
    "failed": "red",
    "timed_out": "red",
    "unhealthy": "red",
    "undetected": "red",
}
_PIPE_WIDTH: Final = 4000
_NARROW: Final = 60
_WHOLE: Final = 36
_SHORT: Final = 12


def emit(value: Any) -> None:
    """Write one JSON document to stdout; it alone."""
    indent = 2 if sys.stdout.isatty() else None
    # Text from outside may hold lone surrogates: they are escaped, the rest is readable.
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def clean(value: Any) -> str:
    """Return text that cannot drive a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(clean(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return clean(json.dumps(value, ensure_ascii=False)) if value else "-"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def short(row_id: str | None) -> str:
    """Return the end of an id, which is enough to name it."""
    if row_id is None:
        return "-"
    return row_id[-_SHORT:] if len(row_id) == _WHOLE else row_id


def age(iso: str | None, *, now_us: int) -> str:
    """Return how long ago a time was, for a table."""
    if iso is None:
        return "-"
    then = datetime.fromisoformat(iso)
    now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=now_us)
    return duration((now - then).total_seconds())


def duration(seconds: float) -> str:
    """Return ``90s``, ``12m``, ``3h``, ``2d``: the largest unit that says enough."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for unit, size, limit in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{sign}{int(seconds // size)}{unit}"
    return f"{sign}{int(seconds // 86400)}d"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Write a table to stdout, or say on stderr that there is nothing."""
    rows = list(rows)
    if not rows:
        sys.stderr.write(f"{empty}\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _PIPE_WIDTH, highlight=False)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(
            name, overflow="fold" if name in {"ID", "RUN", "LEASE"} else "ellipsis"
        )
    for row in rows:
        cells = [clean(cell) for cell in row]
        shown.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in cells))
    if terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Write names and values, one a line; empty values are left out."""
    kept = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        sys.stdout.write(f"{name:<{width}}  {clean(value)}\n")


class ProgressLine:
    """One line on stderr that is written over; nothing unless stderr is a terminal."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        if self._on and text != self._shown:
            self._shown = text
            sys.stderr.write(f"\r\x1b[K\x1b[2m{clean(text)[: _NARROW * 2]}\x1b[0m")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._on and self._shown:
            self._shown = ""
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away for good."""
        self.clear()
        self._on = False
