"""Where a sandbox may reach the API: in this order, each origin once, nothing malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.runtime_urls import (
    MOST,
    Known,
    candidates,
    in_order_of_use,
    is_loopback,
    is_wildcard,
    read_url,
)

ADDRESSES = ("127.0.0.1", "::1", "fe80::1%eth0", "fd00::7", "169.254.3.3", "10.0.0.7")


def pairs(known: Known) -> list[tuple[str, str]]:
    return [(one.source, one.url) for one in candidates(known)]


def test_the_most_wanted_is_the_first() -> None:
    known = Known(
        preferred="http://best:1",
        public="https://runs.example.org",
        names=("api.internal", "gateway"),
        host="10.0.0.7",
        port=8321,
        interfaces=ADDRESSES,
    )
    assert pairs(known) == [
        ("preferred", "http://best:1"),
        ("public", "https://runs.example.org"),
        ("name", "https://api.internal:8321"),
        ("name", "https://gateway:8321"),
        ("bind", "http://10.0.0.7:8321"),
        ("interface", "http://[fd00::7]:8321"),
    ]


def test_a_wildcard_is_no_address_but_the_machines_are() -> None:
    for host in ("0.0.0.0", "::", "", "*", "[::]"):  # noqa: S104  what is left out
        assert is_wildcard(host)
        assert pairs(Known(host=host, port=80, interfaces=ADDRESSES)) == [
            ("interface", "http://10.0.0.7"),
            ("interface", "http://[fd00::7]"),
        ]


@pytest.mark.parametrize(
    "public", ["http://127.0.0.1:8321", "http://localhost:8321", "http://[::1]:8321"]
)
def test_a_loopback_public_url_means_that_docker_has_a_name_for_this_host(public: str) -> None:
    known = Known(public=public, host="127.0.0.1", port=8321)
    assert ("docker", "http://host.docker.internal:8321") in pairs(known)
    elsewhere = Known(public="http://example.org:8321", host="127.0.0.1", port=8321)
    assert "docker" not in {source for source, _ in pairs(elsewhere)}


def test_an_api_elsewhere_has_no_port_of_ours_and_none_of_our_addresses() -> None:
    known = Known(public="https://runs.example.org", names=("other",), interfaces=ADDRESSES)
    assert pairs(known) == [
        ("public", "https://runs.example.org"),
        ("name", "https://other"),
    ]
    assert pairs(Known(names=("other",))) == []


def test_each_origin_is_asked_once_under_its_best_name() -> None:
    known = Known(
        preferred="HTTP://Api:80/",
        public="http://api/below/",
        names=("api",),
        host="api",
        port=80,
    )
    assert pairs(known) == [("preferred", "http://api")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "runs.example.org",
        "ftp://runs.example.org",
        "http://",
        "http://:80",
        "http://a b",
        "http://a:0",
        "http://a:65536",
        "http://a:x",
        "http://[::1",
        "http://[zz]",
        "http://user:word@a",
        "http://a?x=1",
        "http://a#x",
        "http://a/'$(id)'",
        "http://-x",
        "http://ä",
        "http://" + "a" * 254,
    ],
)
def test_what_is_malformed_is_left_out_and_the_others_stay(text: str) -> None:
    assert read_url(text) is None
    assert pairs(Known(preferred=text, public="http://good")) == [("public", "http://good")]


def test_a_path_stays_and_slashes_at_its_end_do_not() -> None:
    assert pairs(Known(public="https://a/b/")) == [("public", "https://a/b")]


def test_addresses_that_others_cannot_use_are_left_out_and_ipv4_is_first() -> None:
    assert in_order_of_use([*ADDRESSES, "nonsense", "0.0.0.0", "224.0.0.1"]) == [  # noqa: S104
        "10.0.0.7",
        "fd00::7",
    ]


def test_a_machine_of_many_addresses_is_not_asked_for_all() -> None:
    many = tuple(f"10.0.{n}.1" for n in range(100))
    assert len(candidates(Known(host="0.0.0.0", port=1, interfaces=many))) == MOST  # noqa: S104


def test_loopback_has_more_than_one_name() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "a.localhost"]))
    assert not any(map(is_loopback, ["10.0.0.1", "localhost.example.org", "fd00::1"]))


@given(st.text(max_size=40))
def test_whatever_is_set_is_either_left_out_or_the_same_when_read_again(text: str) -> None:
    for whole in (text, f"http://{text}"):
        read = read_url(whole)
        if read is not None:
            origin, url = read
            assert read_url(url) == (origin, url)
            assert url.isprintable()
            assert not set(url) & set(" \"'`$\\")
