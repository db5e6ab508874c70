"""
Run tokens: what a command in a sandbox shows to report about its own run, and nothing else.

A token is ``lht_<execution id>_<mac>``: it names one start of one command, and the mac, made
with the deployment's key, proves that we have said so. It holds no time: whether that start is
still the run's current one is asked of SQL at each request. Whoever has to hide a token, or to
give the same one again, makes it anew from the id; so no row ever holds one.

With the same key, under another name, a process of the API proves that it is of this deployment
(`greeting`): before a sandbox has been given a token, it asks whoever listens at an address.
"""

import hashlib
import hmac
import re
from typing import Final

PREFIX: Final = "lht_"
GREETS: Final = "leasehold-"
_MAC_CHARS: Final = 32
"""128 bits: nobody finds one by trying, and each try is counted (`api.gate`)."""

_FORM: Final = re.compile(r"lht_([0-9A-Za-z.-]{1,100})_([0-9a-f]{32})")


def _mac(key: str, purpose: str, text: str) -> str:
    whole = hmac.new(key.encode(), f"{purpose}\0{text}".encode(), hashlib.sha256)
    return whole.hexdigest()[:_MAC_CHARS]


def secret_part(key: str, execution_id: str) -> str:
    """Return what of an execution's token must not be seen."""
    return _mac(key, "run token", execution_id)


def make(key: str, execution_id: str) -> str:
    """Return the token of one start; the same whoever asks, whenever."""
    return f"{PREFIX}{execution_id}_{secret_part(key, execution_id)}"


def execution_of(key: str, token: str) -> str | None:
    """Return which start a token is of; None: it is none that we have made."""
    form = _FORM.fullmatch(token)
    if not key or form is None:
        return None
    true = hmac.compare_digest(secret_part(key, form[1]), form[2])
    return form[1] if true else None


def greeting(key: str, nonce: str) -> str:
    """Return what only a process of this deployment answers to this nonce."""
    return GREETS + _mac(key, "greeting", nonce)


def nonce(key: str, ask_id: str) -> str:
    """Return what is asked under this id: the same to whoever asks again, unknown to others."""
    return _mac(key, "nonce", ask_id)
