"""
API keys: made once, shown once, looked up by every request.

A key is ``lh_<prefix>_<secret>``: 64 bits that find its row, 256 bits that prove it. The row
has the SHA-256 of the whole. A slow hash would buy nothing, since nobody can guess 256 random
bits, and would be paid by every request.

Revoking counts at once: the row is read by each request, and nothing caches it.
"""

import base64
import hashlib
import hmac
import re
from typing import Final

from leasehold import seams
from leasehold.domain.roles import Role
from leasehold.domain.specs import Name, Seconds, Spec
from leasehold.errors import BadInputError, ConflictError, NotFoundError, UnauthenticatedError
from leasehold.ids import PLATFORM, new_id
from leasehold.orchestrator.jobs import SECOND_US
from leasehold.store import keys, moves, slots
from leasehold.store.database import Row, Tx

_FORM: Final = re.compile(r"lh_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_PREFIX_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_NOBODY: Final = "0" * 64
_NOT_VALID: Final = "the API key is not valid"
TOUCH_US: Final = 60 * SECOND_US
"""`last_used_at` is written once in this time, so that a request mostly only reads."""


class KeySpec(Spec):
    """What a key is to be."""

    name: Name
    role: Role | None = None
    """By default the least: `viewer` of a tenant; the platform's keys are all `root`."""

    expires_s: Seconds | None = None
    """How long it is valid; for ever by default."""

    def role_in(self, tenant_id: str) -> Role:
        """
        Return the role of such a key of a tenant, or of the platform.

        Raises:
            BadInputError: No key there has the role that is asked for.
        """
        platform = tenant_id == PLATFORM
        role = self.role or (Role.ROOT if platform else Role.VIEWER)
        if platform is not (role is Role.ROOT):
            allowed = [one.value for one in Role if (one is Role.ROOT) is platform]
            whose = "the platform" if platform else f"tenant {tenant_id}"
            raise BadInputError(
                f"role: a key of {whose} has the role {' or '.join(allowed)}, not {role.value}",
                field="role",
            )
        return role


def create(tx: Tx, spec: KeySpec, *, tenant_id: str, actor: str) -> tuple[Row, str]:
    """
    Make a key; return its row and the key itself, which nobody can show again.

    Args:
        tenant_id: Whose key it is; `PLATFORM` for those of the role `root`.

    Raises:
        BadInputError: No key of theirs has this role.
        ConflictError: A valid key has this name.
    """
    role = spec.role_in(tenant_id)
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    if keys.find_valid(tx, spec.name, tenant_id=tenant_id) is not None:
        raise ConflictError(
            f"there is a key {spec.name} already; revoke it, or take another name"
        )
    prefix = seams.entropy(_PREFIX_BYTES).hex()
    secret = base64.urlsafe_b64encode(seams.entropy(_SECRET_BYTES)).decode().rstrip("=")
    key, now = f"lh_{prefix}_{secret}", tx.now()
    row = keys.insert(
        tx,
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "name": spec.name,
            "prefix": prefix,
            "hash": _hash(key),
            "role": role.value,
            "created_at": now,
            "expires_at": now + int(spec.expires_s * SECOND_US) if spec.expires_s else None,
        },
    )
    _record(tx, "key.created", row, actor)
    return row, key


def revoke(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Take a key's rights away, from the next request on.

    Raises:
        NotFoundError: The tenant has no valid key of this name or id.
    """
    row = keys.find_valid(tx, name, tenant_id=tenant_id)
    revoked = keys.revoke(tx, row["id"]) if row else None
    if revoked is None:
        raise NotFoundError(f"there is no valid key {name!r}")
    _record(tx, "key.revoked", revoked, actor)
    return revoked


def check_form(key: str) -> str:
    """
    Return a key's prefix; what cannot be a key is not worth a look into the database.

    Raises:
        UnauthenticatedError: It cannot be one.
    """
    form = _FORM.fullmatch(key)
    if form is None:
        raise UnauthenticatedError(_NOT_VALID)
    return form[1]


def authenticate(tx: Tx, key: str) -> Row:
    """
    Return the row of a valid key.

    Raises:
        UnauthenticatedError: It is not one; only its holder is told what became of it.
    """
    row = keys.find_by_prefix(tx, check_form(key))
    # The same work whether there is a row or not: time tells nothing of the prefixes.
    if not hmac.compare_digest(_hash(key), row["hash"] if row else _NOBODY) or row is None:
        raise UnauthenticatedError(_NOT_VALID)
    if row["revoked_at"] is not None:
        raise UnauthenticatedError(f"the API key {row['name']} was revoked")
    if row["expires_at"] is not None and row["expires_at"] <= row["now_us"]:
        raise UnauthenticatedError(f"the API key {row['name']} has expired")
    return row


def is_to_be_touched(row: Row) -> bool:
    """Return whether its use is to be noted (`keys.touch`); most requests need no write."""
    return row["last_used_at"] is None or row["last_used_at"] <= row["now_us"] - TOUCH_US


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _record(tx: Tx, event: str, row: Row, actor: str) -> None:
    data = {"key": row["id"], "name": row["name"], "role": row["role"], "actor": actor}
    moves.record(tx, (event, data), tenant_id=row["tenant_id"])
