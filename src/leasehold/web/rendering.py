"""Templates to HTML: everything is escaped unless a template of ours says that it is markup."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from leasehold import __version__
from leasehold.web import ansi

NOTHING: Final = "\N{EN DASH}"
HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
_SHORT: Final = 8
_STEPS: Final = ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600))
_SIZE: Final = 1024


def render(template: str, **what: Any) -> str:
    """Return a page; what is no text in UTF-8 becomes what is shown for such."""
    text = _environment().get_template(template).render(what)
    return text.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["version"] = __version__
    made.filters |= {
        "time": time_of,
        "short": short,
        "span": duration,
        "bytes": size,
        "output": output,
        "between": between,
        "words": words,
        "json": json.dumps,
        "ticks": ticks,
    }
    return made


def time_of(iso: str | None) -> str:
    """Return a time for people; the page's script shows it in their zone."""
    if not iso:
        return NOTHING
    shown = f"{iso[:10]} {iso[11:19]} UTC"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso, shown)


def ticks(text: str) -> str:
    """Return a sentence with the commands in its backticks as code."""
    parts = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


def short(id_: str | None) -> str:
    """Return the end of an id, where ids of one time differ."""
    return (id_ or NOTHING)[-_SHORT:]


def words(name: str) -> str:
    """Return the name of a status as people write it."""
    return name.replace("_", " ")


def duration(seconds: float | None) -> str:
    """Return a duration in its largest unit that is not too coarse."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for below, unit, one in _STEPS:
        if seconds < below:
            return f"{seconds / one:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def between(start: str | None, end: str | None) -> float | None:
    """Return the seconds between two times, if both are there."""
    if not start or not end:
        return None
    moments = (datetime.fromisoformat(at) for at in (start, end))
    first, last = moments
    return (last - first).total_seconds()


def size(count: int) -> str:
    if count < _SIZE:
        return f"{count} B"
    shown = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        shown /= _SIZE
        if shown < _SIZE:
            return f"{shown:.3g} {unit}"
    return f"{shown / _SIZE:.3g} TiB"


def output(text: str) -> str:
    """Return what a command wrote, with its colours."""
    parts = (
        Markup('<span class="{}">{}</span>').format(classes, piece)
        if classes
        else escape(piece)
        for classes, piece in ansi.spans(ansi.shortened(text))
    )
    return Markup("").join(parts)
