"""
Where a sandbox may reach the API, the most wanted first; which one it does, it is asked.

The list is the deployment's, the same for each of its sandboxes. What is malformed is left out:
a slip in one of them must not take the others along.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

MOST: Final = 16
"""A machine may have any number of addresses; what comes later is not asked."""

DOCKER: Final = "host.docker.internal"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORTS: Final = range(1, 65536)
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the API's addresses; nothing of it needs to be true of a sandbox."""

    preferred: str | None = None
    public: str | None = None
    names: tuple[str, ...] = ()
    """Host names under which it may be asked too."""

    host: str | None = None
    """What it is bound to, and `port`."""

    port: int | None = None
    interfaces: tuple[str, ...] = field(default=())
    """Addresses of the machine that it listens on."""


@dataclass(frozen=True, slots=True)
class Candidate:
    source: str
    """preferred, public, name, bind, docker or interface."""

    url: str


def candidates(known: Known) -> tuple[Candidate, ...]:
    """Return what is to be asked, in this order; each origin once."""
    found: dict[tuple[str, str, int], Candidate] = {}
    for source, text in _in_order(known):
        read = read_url(text)
        if read is not None:
            origin, url = read
            found.setdefault(origin, Candidate(source, url))
    return tuple(found.values())[:MOST]


def _in_order(known: Known) -> Iterator[tuple[str, str]]:
    for source, url in (("preferred", known.preferred), ("public", known.public)):
        if url is not None:
            yield source, url
    public = read_url(known.public) if known.public is not None else None
    scheme = public[0][0] if public is not None else "http"
    port = known.port
    if port is None and public is not None:
        port = public[0][2]
    if port is None:
        return
    for name in known.names:
        yield "name", _at(scheme, name, port)
    if known.port is not None and known.host is not None and not is_wildcard(known.host):
        # Ourselves we speak no TLS: that is a proxy's matter, which has the public URL.
        yield "bind", _at("http", known.host, known.port)
    if public is not None and is_loopback(public[0][1]):
        yield "docker", _at(scheme, DOCKER, port)
    if known.port is not None:
        for address in in_order_of_use(known.interfaces):
            yield "interface", _at("http", address, known.port)


def _at(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{shown}:{port}"


def read_url(text: str) -> tuple[tuple[str, str, int], str] | None:
    """Return an address's origin and the address as it is used; None if it is malformed."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _DEFAULT_PORTS or not _is_host(host) or parts.query or parts.fragment:
        return None
    if parts.username is not None or parts.password is not None:
        return None
    if any(not "!" <= char <= "~" or char in "\"'<>\\`{}|^$" for char in parts.path):
        return None
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if port not in _PORTS:
        return None
    shown = f"[{host}]" if ":" in host else host
    place = f"{scheme}://{shown}"
    if port != _DEFAULT_PORTS[scheme]:
        place = f"{place}:{port}"
    return (scheme, host, port), place + parts.path.rstrip("/")


def _is_host(host: str) -> bool:
    if ":" in host:
        return _address(host) is not None
    return 0 < len(host) <= 253 and set(host) <= _NAME_CHARS and host[0] not in "-."  # noqa: PLR2004


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_wildcard(host: str) -> bool:
    """Return whether a bind host means every address of its machine."""
    address = _address(host)
    return host in {"", "*"} or (address is not None and address.is_unspecified)


def is_loopback(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def in_order_of_use(addresses: Iterable[str]) -> list[str]:
    """Return those of a machine's addresses that others may reach it by, IPv4 first."""
    found = [address for text in addresses if (address := _address(text)) is not None]
    usable = [
        one
        for one in found
        if not (one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast)
    ]
    return [str(one) for one in sorted(usable, key=lambda one: one.version)]
