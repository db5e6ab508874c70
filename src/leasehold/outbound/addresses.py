"""
Which addresses may be connected to on somebody else's word.

What is reachable from here and not from everywhere is ours to protect: the machine itself, its
network, what hands out credentials to machines (169.254.169.254 and its like). So an address
must be public, whichever way it is written: an IPv6 address that stands for one of IPv4
(mapped, NAT64, 6to4, Teredo) counts as that one as well. Private networks are reached only if
a setting names them.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        # Also where Python's own list, which grows from version to version, has them.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # Public by its number, and a cloud's own service on every machine in it.
        "168.63.129.16/32",
        "::/128",
        "::1/128",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def networks(text: str) -> tuple[Network, ...]:
    """
    Return the networks of a setting, which are separated by commas.

    Raises:
        ValueError: One of them is none.
    """
    return tuple(ipaddress.ip_network(one) for one in text.split(",") if one)


def refusal(text: str, *, allowed: Iterable[Network] = ()) -> str | None:
    """Return why an address must not be connected to; None: it may."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "is no address"
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "is an address of one link only"
    meant = [address, *_embedded(address)]
    allowed = tuple(allowed)
    if any(one in network for one in meant for network in allowed):
        return None
    if all(_is_public(one) for one in meant):
        return None
    return "is not a public address"


def _is_public(address: Address) -> bool:
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast


def _embedded(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    found += address.teredo or ()
    if address in _NAT64 or address in _COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [one for one in found if one is not None]
