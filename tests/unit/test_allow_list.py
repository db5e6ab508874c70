"""What an allow-list lets through, and what its config refuses."""

import ipaddress
from typing import Any

import pytest

from leasehold.provider import Budget
from leasehold.provider.way_out import allowing
from leasehold_docker.config import check


def through(entries: list[str], host: str, port: int, *leads_to: str) -> list[str]:
    """Return what a connection may go to; a name `leads_to` these addresses."""
    read = [allowing.parse(one) for one in entries]
    address = allowing.literal(host)
    found = [address] if address else [ipaddress.ip_address(one) for one in leads_to]
    if address is None:
        allowing.check_name(read, host, port)
    kept = allowing.check_addresses(read, found, port, of_name=address is None)
    return [str(one) for one in kept]


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("example.org:443", "example.org", 443),
        ("Example.ORG:443", "eXample.org.", 443),
        ("*.example.org:443", "a.b.example.org", 443),
        ("xn--bcher-kva.example:443", "xn--bcher-kva.example", 443),
    ],
)
def test_a_name_that_is_listed_is_let_through(entry: str, host: str, port: int) -> None:
    assert through([entry], host, port, "9.9.9.9") == ["9.9.9.9"]


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("example.org:443", "example.org", 80),
        ("example.org:443", "www.example.org", 443),
        ("*.example.org:443", "example.org", 443),
        ("*.example.org:443", "notexample.org", 443),
        ("*.example.org:443", "example.org.evil.test", 443),
        ("example.org:443", "example.org..", 443),
        ("example.org:443", "example.org\x00.evil.test", 443),
        ("10.0.0.1:443", "example.org", 443),
        ("9.9.9.9:443", "9.9.9.10", 443),
        ("9.9.9.9:443", "9.9.9.9", 80),
        ("example.org:443", "9.9.9.9", 443),
        ("127.0.0.1:443", "127.1", 443),
        ("127.0.0.1:443", "0x7f000001", 443),
    ],
)
def test_what_is_not_listed_is_refused(entry: str, host: str, port: int) -> None:
    with pytest.raises(allowing.RefusedError, match="not on the allow-list"):
        through([entry], host, port, "9.9.9.9")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0",  # noqa: S104
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1",
        "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:7f00:1::1",
    ],
)  # fmt: skip
def test_a_name_that_leads_to_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(allowing.RefusedError, match="not public"):
        through(["example.org:443"], "example.org", 443, address)


def test_of_several_addresses_only_those_that_may_be_are_tried() -> None:
    kept = through(
        ["a.test:1", "10.0.0.0/8:1"], "a.test", 1, "127.0.0.1", "10.1.1.1", "9.9.9.9"
    )
    assert kept == ["10.1.1.1", "9.9.9.9"]


def test_an_address_is_listed_by_its_block_and_in_any_of_its_forms() -> None:
    assert through(["10.0.0.0/8:5432"], "10.200.0.1", 5432) == ["10.200.0.1"]
    assert through(["10.0.0.1:5432"], "::ffff:10.0.0.1", 5432) == ["10.0.0.1"]
    assert through(["[2001:db8::/32]:443"], "[2001:db8::7]", 443) == ["2001:db8::7"]


@pytest.mark.parametrize(
    "entry",
    [
        "example.org", ":443", "example.org:0", "example.org:65536", "example.org:x", "*:443",
        "a.*.org:443", "exa mple.org:443", "http://example.org:443", "10.0.0.1/8:443",
        "300.0.0.1:443", "127.1:443", "[::1:443", "-a.org:443", "a.0x7f:443",
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_meant_is_named_with_its_place(entry: str) -> None:
    config = {"image": "x", "network": "allow_list", "allow": ["ok.test:443", entry]}
    answer = check(config, budget=Budget(5))
    assert [(one.path, one.code) for one in answer.problems] == [("allow.1", "malformed")]


@pytest.mark.parametrize(
    ("config", "path", "code"),
    [
        ({"network": "allow_list"}, "allow", "required"),
        ({"network": "full", "allow": ["a.test:1"]}, "allow", "not_enforced"),
        ({"allow": ["a.test:1"]}, "allow", "not_enforced"),
        ({"user": "64742:1"}, "user", "reserved"),
    ],
)
def test_a_list_that_nobody_would_keep_is_refused(
    config: dict[str, Any], path: str, code: str
) -> None:
    answer = check({"image": "x", **config}, budget=Budget(5))
    assert [(one.path, one.code) for one in answer.problems] == [(path, code)]
