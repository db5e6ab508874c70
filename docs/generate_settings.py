"""
Write docs/settings.md from the fields and sentences of `Settings` and `Timers`.

    python docs/generate_settings.py

A test fails while the file is not what this would write.
"""

import ast
import inspect
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from leasehold.domain.timers import RULES, Timers
from leasehold.settings import PREFIX, Settings

TARGET = Path(__file__).with_name("settings.md")

INTRODUCTION = f"""\
<!-- Written by docs/generate_settings.py from the code. Do not edit. -->

# Settings

Read once, from the environment, when a process starts. A name that begins with `{PREFIX}`
and is not here is refused, with the list of those that are. Durations are seconds or ISO 8601
(`PT30S`).

| name | default | what it is |
|---|---|---|"""

TIMERS = f"""
## Timers

`{PREFIX}TIMERS` is a JSON object: `{{"session_ttl": 20, "deadline": "P1D"}}`. A table that
would break a promise is refused when a process starts, with the rule that it breaks. Give every
process of a deployment the same.

| timer | default | what it is |
|---|---|---|"""


def render() -> str:
    """Return the whole page."""
    said = sentences(Settings)
    lines = [INTRODUCTION]
    for name, field in Settings.model_fields.items():
        shown = _shown(field.get_default(call_default_factory=True))
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {said[name]} |")
    said = sentences(Timers)
    lines.append(TIMERS)
    defaults = Timers()
    for timer in fields(Timers):
        shown = _duration(getattr(defaults, timer.name))
        lines.append(f"| `{timer.name}` | {shown} | {said[timer.name]} |")
    rules = [f"- `{text}`" for text, _ in RULES]
    return "\n".join([*lines, "", "Rules between them:", "", *rules, ""])


def sentences(kind: type) -> dict[str, str]:
    """Return what the source says below each field."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for line in node.body:
        match line:
            case ast.AnnAssign(target=ast.Name(id=str(target))):
                name = target
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                found[name] = " ".join(text.replace("``", "`").split())
                name = ""
            case _:
                name = ""
    return found


def _shown(value: Any) -> str:
    if value is None or value == {}:
        return "—"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
