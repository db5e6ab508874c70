"""Which addresses a webhook never reaches, however they are written."""

import pytest

from leasehold import settings
from leasehold.errors import BadInputError
from leasehold.outbound.addresses import networks, refusal

PUBLIC = (
    "93.184.215.14",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
)
PRIVATE = (
    "0.0.0.0",  # noqa: S104  an address like the others
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:0",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:5ef5:79fd:0:0:80ff:fffe",
    "2001:db8::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "localhost",
    "0x7f.1",
    "2130706433",
    "",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_reached(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert refusal(address) is not None


def test_a_private_network_is_reached_only_if_it_is_named() -> None:
    allowed = networks("10.1.0.0/16,fd00:1::/64")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::7"):
        assert refusal(address, allowed=allowed) is None
    for address in ("10.2.0.1", "127.0.0.1", "fd00:2::1", "169.254.169.254"):
        assert refusal(address, allowed=allowed) is not None


def test_what_is_no_network_is_refused() -> None:
    assert networks("") == ()
    with pytest.raises(ValueError, match="does not appear to be"):
        networks("10.0.0.0/8,house")


def test_a_setting_that_names_no_network_is_refused_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wrong in ("10.0.0.0/99", "10.0.0.1/8", "house"):
        monkeypatch.setenv("LEASEHOLD_WEBHOOK_NETWORKS", wrong)
        with pytest.raises(BadInputError, match="LEASEHOLD_WEBHOOK_NETWORKS"):
            settings.load()
    monkeypatch.setenv("LEASEHOLD_WEBHOOK_NETWORKS", "10.0.0.0/8,fd00::/8")
    assert settings.load().webhook_networks == "10.0.0.0/8,fd00::/8"
