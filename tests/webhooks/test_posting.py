"""One POST to where somebody else says: what is reached, what is not, within which bounds."""

import datetime as dt
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from leasehold.outbound.addresses import networks
from leasehold.outbound.posting import Poster
from webhooks.receiver import DRIP, FLOOD, FLOOD_BYTES, HANG, Receiver, receiving

NAME = "hooks.example.org"
HERE, ELSEWHERE = "127.0.0.2", "127.0.0.1"
"""The one address that these posters may reach; and one that they may not."""


class Names:
    """A resolver that gives one answer after the other; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def poster(*answers: Sequence[str], timeout_s: float = 5.0, **more: Any) -> Poster:
    more.setdefault("resolve", Names(*(answers or ([HERE],))))
    return Poster(timeout_s=timeout_s, allowed=networks(f"{HERE}/32"), **more)


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiving(host=HERE) as receiver:
        yield receiver


def test_what_is_posted_comes_as_it_is_to_the_checked_address(there: Receiver) -> None:
    post = poster()
    reply = post(f"http://{NAME}:{there.port}/a/b?c=d", {"webhook-id": "m"}, b"{}")
    assert (reply.status, reply.problem) == (200, None)
    (got,) = there.got
    assert (got.path, got.body) == ("/a/b?c=d", b"{}")
    assert got.headers["host"] == f"{NAME}:{there.port}"
    assert got.headers["webhook-id"] == "m"
    assert "cookie" not in {name.lower() for name in got.headers}


def test_a_name_that_is_bound_anew_between_check_and_connection_is_not_followed(
    there: Receiver,
) -> None:
    with receiving(host=ELSEWHERE, port=there.port) as victim:
        names = Names([HERE], [ELSEWHERE])
        post = poster(resolve=names)
        url = f"http://{NAME}:{there.port}/"
        assert post(url, {}, b"").status == 200
        assert names.asked == [(NAME, there.port)]
        refused = post(url, {}, b"")
        assert refused.status is None
        assert "not public" in str(refused.problem)
        assert len(there.got) == 1
        assert victim.got == []


def test_of_several_addresses_only_those_that_may_be_reached_are_tried(there: Receiver) -> None:
    with receiving(host=ELSEWHERE, port=there.port) as victim:
        post = poster([ELSEWHERE, "::1", "::ffff:127.0.0.1", HERE])
        assert post(f"http://{NAME}:{there.port}/", {}, b"").status == 200
        assert victim.got == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.1", "169.254.169.254", "[fe80::1]"],
)
def test_an_address_in_the_url_is_checked_like_any_other(host: str) -> None:
    post = Poster(timeout_s=5.0)
    with receiving() as victim:
        reply = post(f"http://{host}:{victim.port}/", {}, b"")
        assert reply.status is None
        assert victim.got == []
    assert host.strip("[]") not in str(reply.problem)


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433"])
def test_other_ways_to_write_this_machine_end_at_the_same_check(host: str) -> None:
    post = Poster(timeout_s=5.0)
    with receiving() as victim:
        assert post(f"http://{host}:{victim.port}/", {}, b"").status is None
        assert victim.got == []


def test_a_redirect_is_followed_with_its_body_and_checked_like_the_first(
    there: Receiver,
) -> None:
    with receiving(host=ELSEWHERE) as victim:
        there.answers[:] = [
            (307, {"location": "/next"}),
            (308, {"location": f"http://{ELSEWHERE}:{victim.port}/secret"}),
        ]
        post = poster([HERE], [HERE], [ELSEWHERE])
        reply = post(f"http://{NAME}:{there.port}/", {"webhook-id": "m"}, b"body")
        assert "not public" in str(reply.problem)
        assert [(got.path, got.body) for got in there.got] == [
            ("/", b"body"),
            ("/next", b"body"),
        ]
        assert victim.got == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_change_the_method_is_not_followed(
    there: Receiver, status: int
) -> None:
    there.answers[:] = [(status, {"location": "/next"})]
    reply = poster()(f"http://{NAME}:{there.port}/", {}, b"")
    assert reply.status == status
    assert "only 307 and 308" in str(reply.problem)
    assert len(there.got) == 1


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://user:word@{name}:{port}/", "with credentials"),
        ("ftp://{name}/", "must begin with https"),
        ("http://{name}:0/", "no host"),
    ],
)
def test_a_redirect_into_something_strange_is_refused(
    there: Receiver, location: str, words: str
) -> None:
    there.answers[:] = [(307, {"location": location.format(name=NAME, port=there.port)})]
    reply = poster()(f"http://{NAME}:{there.port}/", {}, b"")
    assert words in str(reply.problem), reply
    assert "word@" not in str(reply.problem)
    assert len(there.got) == 1


def test_redirects_end(there: Receiver) -> None:
    there.answers[:] = [(307, {"location": "/again"})] * 9
    reply = poster()(f"http://{NAME}:{there.port}/", {}, b"")
    assert reply.problem == "redirects more than 3 times"
    assert len(there.got) == 4


@pytest.mark.parametrize("behaviour", [HANG, DRIP])
def test_who_does_not_answer_is_left_in_time(there: Receiver, behaviour: str) -> None:
    there.answers[:] = [behaviour]
    began = time.monotonic()
    reply = poster(timeout_s=1.0)(f"http://{NAME}:{there.port}/", {}, b"")
    assert reply.problem == "no answer within 1 s"
    assert time.monotonic() - began < 8
    assert len(there.got) == 1


def test_time_runs_on_over_redirects(there: Receiver) -> None:
    there.answers[:] = [(307, {"location": "/next"}), HANG]
    reply = poster(timeout_s=1.0)(f"http://{NAME}:{there.port}/", {}, b"")
    assert reply.problem == "no answer within 1 s"


def test_the_body_of_an_answer_is_not_taken(there: Receiver) -> None:
    there.answers[:] = [FLOOD]
    reply = poster()(f"http://{NAME}:{there.port}/", {}, b"")
    assert (reply.status, reply.problem) == (200, None)
    there.leave.wait(0.2)
    assert there.flooded < FLOOD_BYTES / 4


def test_a_name_that_resolves_slowly_or_never_is_left_in_time() -> None:
    def never(_host: str, _port: int) -> Sequence[str]:
        time.sleep(3)
        return []

    def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror

    for resolve, words in ((never, "not resolved in time"), (unknown, "cannot be resolved")):
        began = time.monotonic()
        reply = Poster(timeout_s=0.2, resolve=resolve)(f"http://{NAME}/", {}, b"")
        assert words in str(reply.problem)
        assert time.monotonic() - began < 2.5


def test_nothing_is_taken_from_the_environment(
    there: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {NAME} login me password word\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with receiving(host=ELSEWHERE) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{ELSEWHERE}:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://{ELSEWHERE}:{proxy.port}")
        assert poster()(f"http://{NAME}:{there.port}/", {}, b"").status == 200
        assert proxy.got == []
    assert "authorization" not in {name.lower() for name in there.got[0].headers}


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_answer_that_is_no_success_is_a_problem(there: Receiver, status: int) -> None:
    there.answers[:] = [(status, {"retry-after": "7"})]
    reply = poster()(f"http://{NAME}:{there.port}/", {}, b"")
    assert (reply.status, reply.problem) == (status, f"answered {status}")
    assert reply.retry_after_s == 7


def test_nobody_there_is_a_problem_in_our_words() -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    reply = poster()(f"http://{NAME}:{port}/path", {}, b"")
    assert reply.problem == "the connection was refused"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of `NAME` that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    first, last = (dt.datetime(y, 1, 1, tzinfo=dt.UTC) for y in (2020, 2099))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    where = tmp_path_factory.mktemp("tls")
    (where / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (where / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(where / "chain.pem"), str(where / "key.pem")


@pytest.fixture
def secure(certificate: tuple[str, str]) -> Iterator[Receiver]:
    with receiving(host=HERE, certificate=certificate) as receiver:
        yield receiver


@pytest.fixture
def trusting(certificate: tuple[str, str]) -> Callable[..., Poster]:
    return lambda *answers: poster(*answers, ca_file=Path(certificate[0]))


def test_tls_is_with_the_name_although_the_connection_is_with_the_address(
    secure: Receiver, trusting: Callable[..., Poster]
) -> None:
    assert trusting()(f"https://{NAME}:{secure.port}/", {}, b"x").status == 200
    assert secure.server_names == [NAME]
    assert secure.got[0].headers["host"] == f"{NAME}:{secure.port}"


def test_a_certificate_of_another_name_or_of_nobody_is_refused(
    secure: Receiver, trusting: Callable[..., Poster]
) -> None:
    other = trusting()(f"https://other.example.org:{secure.port}/", {}, b"x")
    assert "certificate is not trusted" in str(other.problem)
    nobody = poster()(f"https://{NAME}:{secure.port}/", {}, b"x")
    assert "certificate is not trusted" in str(nobody.problem)
    assert secure.got == []


def test_https_is_never_left_for_http(
    secure: Receiver, there: Receiver, trusting: Callable[..., Poster]
) -> None:
    secure.answers[:] = [(307, {"location": f"http://{NAME}:{there.port}/"})]
    reply = trusting()(f"https://{NAME}:{secure.port}/", {}, b"x")
    assert reply.problem == "redirects from https to http"
    assert there.got == []
