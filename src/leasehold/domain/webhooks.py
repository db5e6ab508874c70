"""
Webhooks: what a person may ask for, how a message is signed, when it is tried again.

The signature is the one of Standard Webhooks (https://www.standardwebhooks.com, version 1):
HMAC-SHA256 with the decoded secret over ``id.timestamp.body``, as ``v1,<base64>``.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from leasehold.domain.lifecycle import RUN_ENDS, RunStatus
from leasehold.domain.specs import Name, Spec, Text
from leasehold.errors import BadInputError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  what each of them begins with
SECRET_BYTES: Final = 32
SCHEMES: Final = ("https", "http")
MAX_URL: Final = 2000

RETRY_BASE: Final = timedelta(seconds=5)
RETRY_MAX: Final = timedelta(hours=1)
GIVE_UP: Final = timedelta(hours=24)
"""A delivery that is older is tried no more."""

CIRCUIT_AFTER: Final = 5
"""So many failures in a row, and a webhook rests; then one delivery tries if it is well."""

REST_BASE: Final = timedelta(seconds=30)
REST_MAX: Final = timedelta(minutes=30)
OLD_SECRET_KEPT: Final = timedelta(hours=24)
"""So long after a new secret was made each message is signed with the old one as well."""

PAYLOAD_VERSION: Final = 1


def url_problem(url: str) -> str | None:
    """Return what is wrong with a receiver's URL, never the URL; None: nothing."""
    if len(url) > MAX_URL:
        return f"has over {MAX_URL} characters"
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url):  # noqa: PLR2004  controls
        return "holds a space or a control character"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in SCHEMES:
        return "must begin with https:// (or http://)"
    if not host or port == 0:
        return "names no host"
    if "@" in parts.netloc:
        return "carries credentials, which would stand in rows: the signature says who we are"
    if parts.fragment or "#" in url:
        return "has a fragment, which is never sent"
    return None


def _is_a_receiver(url: str) -> str:
    if (problem := url_problem(url)) is not None:
        raise ValueError(problem)
    return url


def _are_ends(statuses: tuple[RunStatus, ...]) -> tuple[RunStatus, ...]:
    if not all(status in RUN_ENDS for status in statuses):
        allowed = ", ".join(sorted(status.value for status in RUN_ENDS))
        raise ValueError(f"a run ends as one of: {allowed}")
    return tuple(sorted(set(statuses)))


Url = Annotated[Text, AfterValidator(_is_a_receiver)]
Ends = Annotated[
    tuple[RunStatus, ...], Field(min_length=1, max_length=8), AfterValidator(_are_ends)
]
Labels = Annotated[
    dict[Name, Annotated[Text, Field(max_length=255)]], Field(min_length=1, max_length=8)
]


class WebhookSpec(Spec):
    """Where the end of a run is told, and of which runs."""

    name: Name
    url: Url
    """``https://…`` or ``http://…``; without credentials."""

    statuses: Ends | None = None
    """Only runs that end so; null: all."""

    labels: Labels | None = None
    """Only runs that have all of these; null: all."""

    environment: Name | None = None
    """Only runs of this environment, by its name; null: of all."""

    enabled: bool = True


class WebhookChange(Spec):
    """What of a webhook is to be different; what is not given stays."""

    url: Url = ""
    statuses: Ends | None = None
    labels: Labels | None = None
    environment: Name | None = None
    enabled: bool = True


def origin(url: str) -> str:
    """Return what may be shown of a receiver to who may not change it: paths can be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def secret_text(raw: bytes) -> str:
    """Return a secret as it is given to a receiver."""
    return SECRET_PREFIX + base64.b64encode(raw).decode()


def sign(secret: str, *, message_id: str, timestamp_s: int, body: bytes) -> str:
    """
    Return the signature of one message.

    Raises:
        BadInputError: The secret is none of ours.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadInputError("secret: is no webhook secret", field="secret") from None
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def headers(
    secrets: Sequence[str], *, message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Return the three headers of a message; signed with each of the secrets that count."""
    signatures = [
        sign(secret, message_id=message_id, timestamp_s=timestamp_s, body=body)
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def payload(event: str, run: dict[str, Any], *, at: str | None) -> dict[str, Any]:
    """Return what a message says; keys may be added to it, never renamed."""
    return {
        "version": PAYLOAD_VERSION,
        "type": event,
        "timestamp": at,
        "data": {"run": run},
    }
