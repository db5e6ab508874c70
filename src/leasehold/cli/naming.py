"""What is meant by a name that was typed."""

from collections.abc import Sequence

from leasehold.errors import NotFoundError


def the_host(text: str, found: Sequence[str]) -> str:
    """
    Return the one host that is meant.

    Raises:
        NotFoundError: There is none, or several.
    """
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"{text}: several hosts are meant: {', '.join(found)}")
    raise NotFoundError(f"there is no worker or host {text}")
