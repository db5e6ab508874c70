"""
What a repository's URL may hold.

A URL stands in rows, events, logs, lists and in what git itself says. So it holds no
credentials: they are a secret of their own, which the run names (`TreeSpec.credential`).
"""

import re
from typing import Final

_USER_PART: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/*([^/?#]*)@")

NO_CREDENTIALS: Final = (
    "carries credentials, which would stand in rows and logs: put them into a secret"
    " (leasehold secrets set NAME) and name that (--workspace-secret NAME; in JSON the tree's"
    ' "credential": {"secret": NAME})'
)


def has_credentials(url: str) -> bool:
    """Tell whether there is a password, or a user where that is a token: all but ssh."""
    found = _USER_PART.match(url.strip())
    if found is None:
        return False
    return not found[1].lower().endswith("ssh") or ":" in found[2]
