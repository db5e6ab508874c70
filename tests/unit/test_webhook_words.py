"""Webhooks at the border: what is refused, and how a message is signed."""

import base64

import pytest

from leasehold.domain import webhooks as hooks
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_message_is_signed_as_the_specification_does_it() -> None:
    said = hooks.sign(
        SECRET,
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_part_of_a_message_is_signed() -> None:
    whole = {"message_id": "m", "timestamp_s": 1, "body": b"b"}
    said = hooks.sign(SECRET, **whole)  # type: ignore[arg-type]  # of mixed kinds
    for change in ({"message_id": "n"}, {"timestamp_s": 2}, {"body": b"c"}):
        assert hooks.sign(SECRET, **(whole | change)) != said  # type: ignore[arg-type]
    assert hooks.sign(hooks.secret_text(b"another"), **whole) != said  # type: ignore[arg-type]


def test_while_a_secret_changes_both_sign() -> None:
    old, new = hooks.secret_text(b"o" * 32), hooks.secret_text(b"n" * 32)
    made = hooks.headers([new, old], message_id="m", timestamp_s=1, body=b"")
    each = [hooks.sign(one, message_id="m", timestamp_s=1, body=b"") for one in (new, old)]
    assert made["webhook-signature"].split(" ") == each


def test_a_secret_is_random_bytes_in_base64() -> None:
    text = hooks.secret_text(b"\0" * hooks.SECRET_BYTES)
    assert base64.b64decode(text.removeprefix("whsec_")) == b"\0" * 32


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org",
        "https://",
        "https://user@example.org/",
        "https://user:word@example.org/",
        "https://example.org/#there",
        "https://example.org/a b",
        "https://example.org/\r\nx: y",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://[::1/",
        "//example.org/",
        "example.org",
        "https://example.org/" + "x" * 2000,
    ],
)
def test_what_is_no_receiver_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse(hooks.WebhookSpec, {"name": "n", "url": url})
    assert refused.value.field == "url"
    assert "word" not in str(refused.value)


def test_a_filter_names_only_ends() -> None:
    spec = {"name": "n", "url": "https://example.org/", "statuses": ["failed", "failed"]}
    assert parse(hooks.WebhookSpec, spec).statuses == ("failed",)
    with pytest.raises(BadInputError, match="a run ends as one of: cancelled, failed"):
        parse(hooks.WebhookSpec, spec | {"statuses": ["running"]})
    nothing: list[dict[str, object]] = [{"statuses": []}, {"labels": {}}]
    for empty in nothing:
        with pytest.raises(BadInputError, match="at least 1"):
            parse(hooks.WebhookSpec, spec | empty)


def test_of_a_url_only_the_origin_is_shown_to_everybody() -> None:
    assert hooks.origin("https://example.org:8443/services/T0/secret?key=x") == (
        "https://example.org:8443"
    )
