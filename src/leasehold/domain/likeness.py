"""
Which failures are alike: their code, exit code, program, and message without what varies; pure.
"""

import hashlib
import re
from typing import Final

from leasehold.domain.fingerprint import canonical_json

_SHOWN: Final = 300
_VARYING: Final = re.compile(
    r"(?P<id>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b(?=\w*\d)[0-9a-f]{12,}\b)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b)"
    r"|(?P<n>\b\d+(?:\.\d+)?)",
    re.IGNORECASE,
)


def pattern(message: str | None) -> str:
    """Return a message with ids, times, addresses and numbers replaced by their kind."""
    text = " ".join((message or "").split())[: 4 * _SHOWN]
    return _VARYING.sub(lambda found: f"<{found.lastgroup}>", text)[:_SHOWN]


def fingerprint(
    code: str | None, exit_code: int | None, program: str | None, message: str | None
) -> str:
    """Return what failures that are alike have in common, as twelve hexadecimal digits."""
    alike = canonical_json([code, exit_code, program, pattern(message)])
    return hashlib.sha256(alike.encode(errors="replace")).hexdigest()[:12]
