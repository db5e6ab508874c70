"""Durations as people write them: ``90``, ``"90s"``, ``"10m"``, ``"1h30m"``, ``"7d"``."""

import re
from datetime import timedelta
from typing import Any, Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> Any:
    """Return seconds for ``"10m"`` and the like; anything else is returned as it came."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    try:
        return float(text)
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError('must be seconds or a duration such as "90s", "10m", "1h30m", "7d"')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
