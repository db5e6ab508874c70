"""What a browser may come with instead of an API key; pure."""

from enum import StrEnum
from typing import Final

SECOND_US: Final = 1_000_000


class PassKind(StrEnum):
    """What its holder may do with a pass."""

    LINK = "link"
    """Signs in, once."""

    SESSION = "session"
    """Is signed in, as its API key."""


LASTS_US: Final = {
    PassKind.LINK: 15 * 60 * SECOND_US,
    PassKind.SESSION: 12 * 3600 * SECOND_US,
}
"""How long each lasts; a key that ends sooner ends it sooner."""
