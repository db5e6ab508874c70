"""
Signing in with a browser: an API key, or a link that was printed, for a pass.

A browser keeps a **pass** in a cookie: 256 random bits, of which the database has the SHA-256.
A pass stands for one API key, whose row every request reads: it ends with the key, at once.
A link is a pass too: using it deletes it in the transaction that makes the session, so of two
who use it one is signed in. Killed in between: neither happened, and the link still stands.
"""

import base64
import hashlib
import hmac
from typing import Final

from leasehold import seams
from leasehold.domain.passes import PassKind
from leasehold.domain.roles import Role
from leasehold.errors import UnauthenticatedError
from leasehold.orchestrator import keys
from leasehold.store import keys as key_rows
from leasehold.store import moves, passes
from leasehold.store.database import Row, Tx

_BYTES: Final = 32
_CHARS: Final = 43
KEY_NAME: Final = "monitor"
"""The key of a home's links; revoke it to end all that came of them."""


def _fresh() -> str:
    return base64.urlsafe_b64encode(seams.entropy(_BYTES)).decode().rstrip("=")


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def sign_in(tx: Tx, key: str) -> str:
    """
    Return a new session's secret for an API key.

    Raises:
        UnauthenticatedError: It is no valid key.
    """
    return _open(tx, keys.authenticate(tx, key))


def use_link(tx: Tx, secret: str) -> str:
    """
    Return a new session's secret for a link's, which is used up by that.

    Raises:
        UnauthenticatedError: It was used, it has expired, or its key is not valid any more.
    """
    row = passes.find_key(tx, _id(secret), PassKind.LINK)
    if row is None or not passes.delete(tx, _id(secret), PassKind.LINK):
        raise UnauthenticatedError("this link was used already, or it has expired")
    return _open(tx, row)


def _open(tx: Tx, key: Row) -> str:
    secret = _fresh()
    passes.insert(tx, _id(secret), PassKind.SESSION, key=key)
    _record(tx, "key.signed_in", key)
    return secret


def make_link(tx: Tx, *, tenant_id: str, actor: str) -> str:
    """Return the secret of a new link that signs in as an admin of a tenant."""
    key = key_rows.find_valid(tx, KEY_NAME, tenant_id=tenant_id)
    if key is None:
        spec = keys.KeySpec(name=KEY_NAME, role=Role.ADMIN)
        # Nobody ever has this key itself: it is there for its links.
        key, _ = keys.create(tx, spec, tenant_id=tenant_id, actor=actor)
    secret = _fresh()
    passes.insert(tx, _id(secret), PassKind.LINK, key=key)
    return secret


def key_of(tx: Tx, secret: str) -> Row:
    """
    Return the key of a session.

    Raises:
        UnauthenticatedError: There is no such session, or it is over.
    """
    row = passes.find_key(tx, _id(secret), PassKind.SESSION)
    if row is None:
        raise UnauthenticatedError("sign in with an API key")
    return row


def is_secret(text: str) -> bool:
    """Return whether it may be one of ours: only that is looked up."""
    return len(text) == _CHARS and text.isascii()


def sign_out(tx: Tx, secret: str, *, key: Row) -> None:
    """End a session, wherever its cookie is."""
    if passes.delete(tx, _id(secret), PassKind.SESSION):
        _record(tx, "key.signed_out", key)


def token_of(secret: str) -> str:
    """Return what a form of this session must bring, so that no other site can send it."""
    digest = hmac.digest(secret.encode(), b"forms", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_token(secret: str, token: str) -> bool:
    return hmac.compare_digest(token_of(secret).encode(), token.encode(errors="replace"))


def _record(tx: Tx, event: str, key: Row) -> None:
    data = {"key": key["id"], "name": key["name"], "actor": f"key:{key['id']}"}
    moves.record(tx, (event, data), tenant_id=key["tenant_id"])
