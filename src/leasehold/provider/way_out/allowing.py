"""
What an allow-list lets through; pure.

An entry is a name or a block of addresses, with a port:

    example.org:443        this name
    *.example.org:443      every name below it, not itself
    192.0.2.7:5432         this address; 192.0.2.0/24:5432 all of the block
    [2001:db8::1]:443      likewise

A name is asked for and looked up once, by the gatekeeper, and what was found is what is
connected to. So it does not matter what the sandbox believes about a name, nor what the name
is changed to in between. A name that leads to an address which is not public (the host itself,
its network, a cloud's metadata) is refused all the same, unless an entry allows that address:
who owns an allowed name cannot open the host's own network with it.

A name never looks like an address: its last label begins with a letter. Other spellings of
addresses (`127.1`, `0x7f000001`, `2130706433`) are thereby neither names nor addresses.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Block = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"({_LABEL}\.)*[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?")
_MOST: Final = 253
_DISGUISES: Final = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("2002::/16"),
)
"""Where an address of version 4 stands inside of one of version 6 (NAT64, Teredo, 6to4)."""


class RefusedError(Exception):
    """The list does not let it through; says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    port: int
    name: str = ""
    below: bool = False
    block: Block | None = None


def parse(text: str) -> Entry:
    """
    Read an entry.

    Raises:
        ValueError: It is none; says what is wrong.
    """
    host, _, digits = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", digits) or not 0 < int(digits) < 2**16:
        raise ValueError("must end with a port, as in example.org:443")
    port = int(digits)
    if host.startswith("[") and host.endswith("]"):
        return Entry(port, block=ipaddress.IPv6Network(host[1:-1]))
    if re.fullmatch(r"[0-9./]+", host):
        return Entry(port, block=ipaddress.IPv4Network(host))
    below = host.startswith("*.")
    name = host.removeprefix("*.").lower()
    if not _is_name(name):
        raise ValueError(
            "must begin with a name (example.org), names below it (*.example.org), or an "
            "address or block ([..] around one of version 6)"
        )
    return Entry(port, name=name, below=below)


def literal(host: str) -> Address | None:
    """Return the address that a host is in the usual spelling; None if it is not one."""
    try:
        return _plain(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def check_name(entries: Iterable[Entry], host: str, port: int) -> str:
    """
    Return the name in its plain form, to be looked up.

    Raises:
        RefusedError: No entry names it with this port.
    """
    name = host.lower().removesuffix(".")
    if _is_name(name):
        for one in entries:
            if one.port == port and one.name and _fits(one, name):
                return name
    raise RefusedError("is not on the allow-list")


def check_addresses(
    entries: Sequence[Entry], found: Iterable[Address], port: int, *, of_name: bool
) -> list[Address]:
    """
    Return the addresses that may be connected to, in their order.

    Raises:
        RefusedError: None of them may.
    """
    plain = [_plain(one) for one in found]
    kept = [
        one for one in plain if _listed(entries, one, port) or (of_name and _is_public(one))
    ]
    if not kept:
        raise RefusedError(
            "leads only to addresses that are not public, and no entry allows these"
            if of_name
            else "is not on the allow-list"
        )
    return kept


def _is_name(name: str) -> bool:
    return len(name) <= _MOST and _NAME.fullmatch(name) is not None


def _fits(entry: Entry, name: str) -> bool:
    return name.endswith(f".{entry.name}") if entry.below else name == entry.name


def _listed(entries: Iterable[Entry], address: Address, port: int) -> bool:
    return any(
        one.block is not None and one.port == port and address in one.block for one in entries
    )


def _plain(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_public(address: Address) -> bool:
    hidden = any(address in block for block in _DISGUISES)
    return address.is_global and not address.is_multicast and not hidden
