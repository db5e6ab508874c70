"""
What a worker knows of where the API is: what it was told, and what this machine has.

Without a setting and without a stack in this home that serves one there is no API, and nothing
is looked at but whether the stack's file is there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from leasehold.domain.runtime_urls import Known, read_url
from leasehold.seams import boot_time
from leasehold.settings import Settings

FILE: Final = "api-url"
"""In a stack's home, once its API has answered: where that is."""

_KEEP_S: Final = 10.0


def of(settings: Settings) -> Callable[[], Known | None]:
    """Return what tells it, again and again: a stack's API may come and go."""
    home, interfaces = settings.home.absolute(), _Interfaces()

    def known() -> Known | None:
        bind = settings.api_bind
        public, embedded = settings.public_url, None
        if bind is None:
            embedded = _of_stack(home)
        if bind is None and embedded is not None:
            bind = embedded.partition("://")[2]
            public = public or embedded
        if bind is None and public is None and settings.runtime_url is None:
            return None
        host, port = _split(bind) if bind is not None else (None, None)
        return Known(
            preferred=settings.runtime_url,
            public=public,
            names=tuple(filter(None, settings.api_names.split(","))),
            host=host,
            port=port,
            interfaces=interfaces.addresses() if port is not None else (),
        )

    return known


def _split(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def _of_stack(home: Path) -> str | None:
    try:
        text = (home / FILE).read_text().strip()
    except OSError:
        return None
    return text if read_url(text) is not None else None


class _Interfaces:
    """The machine's addresses; looked up now and then."""

    def __init__(self) -> None:
        self._found: tuple[str, ...] = ()
        self._until = 0.0

    def addresses(self) -> tuple[str, ...]:
        if boot_time() >= self._until:
            self._found = tuple(
                one.address
                for addresses in psutil.net_if_addrs().values()
                for one in addresses
                if one.family.name in {"AF_INET", "AF_INET6"}
            )
            self._until = boot_time() + _KEEP_S
        return self._found
