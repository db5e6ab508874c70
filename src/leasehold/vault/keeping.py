"""
Setting, deleting and encrypting anew: what people do with secrets, in one transaction each.

A new value is a new version; the old one stays for as long as a live lease names it. Idle
sandboxes made from the old one match no more, and are released when the next run comes.
"""

from typing import Final

from leasehold.domain.secrets import MAX_BYTES, NAME_PATTERN
from leasehold.errors import BadInputError
from leasehold.ids import PLATFORM
from leasehold.orchestrator import hooking
from leasehold.store import moves, secret_views, secrets, webhooks
from leasehold.store.database import Database, Tx
from leasehold.store.views import Shape
from leasehold.vault.keys import Keys

_BATCH: Final = 100


def check(name: str, value: str) -> None:
    """
    Refuse a name or a value that cannot be kept.

    Raises:
        BadInputError: Says what is allowed, and never what came.
    """
    import re

    if not re.match(NAME_PATTERN, name):
        raise BadInputError(
            "name: must begin with a letter or digit and have up to 100 of those and _ . -",
            field="name",
        )
    size = len(value.encode(errors="surrogateescape"))
    if not size:
        raise BadInputError("value: is empty", field="value")
    if size > MAX_BYTES:
        raise BadInputError(f"value: has {size} bytes; at most {MAX_BYTES}", field="value")
    if "\0" in value:
        raise BadInputError("value: must not hold a NUL character", field="value")


def put(
    tx: Tx, keys: Keys, *, tenant_id: str, name: str, value: str, actor: str | None = None
) -> int:
    """Store a value under a name; return its version."""
    check(name, value)
    version = secrets.put(tx, tenant_id=tenant_id, name=name)
    sealed = keys.seal(value, tenant_id=tenant_id, name=name, version=version)
    secrets.insert_version(
        tx,
        tenant_id=tenant_id,
        name=name,
        version=version,
        key_id=keys.first,
        ciphertext=sealed,
    )
    data = {"secret": name, "version": version, **_by(actor)}
    moves.record(tx, ("secret.set", data), tenant_id=tenant_id)
    secrets.prune(tx)
    return version


def delete(tx: Tx, *, tenant_id: str, name: str, actor: str | None = None) -> Shape:
    """
    Take a name away; return what it was, with the leases that go on with what they name of it.

    Raises:
        NotFoundError: There is no such secret; says which there are.
    """
    shape = secret_views.one(tx, name, tenant_id=tenant_id)
    secrets.delete(tx, tenant_id=tenant_id, name=name)
    moves.record(tx, ("secret.deleted", {"secret": name, **_by(actor)}), tenant_id=tenant_id)
    secrets.prune(tx)
    return shape


def _by(actor: str | None) -> dict[str, str]:
    return {"actor": actor} if actor else {}


def rotate(database: Database, keys: Keys, *, actor: str | None = None) -> int:
    """
    Encrypt everything anew with the first key; return how many values.

    Killed in between: what is done is done, and the next call goes on. Both keys must stay in
    the file until it has come through.

    Raises:
        SecretUnavailableError: A value was encrypted with a key that is not in the file.
    """
    done = _rotate_webhooks(database, keys)
    while True:
        with database.read() as tx:
            rows = secrets.not_under(tx, keys.first, limit=_BATCH)
        if not rows:
            return done
        with database.write("secrets.rotate") as tx:
            data = {"key": keys.first, "values": len(rows), **_by(actor)}
            moves.record(tx, ("secrets.encrypted_anew", data), tenant_id=PLATFORM)
            for row in rows:
                subject = {name: row[name] for name in ("tenant_id", "name", "version")}
                value = keys.open(row["ciphertext"], **subject)
                sealed = keys.seal(value, **subject)
                done += secrets.encrypt_anew(tx, row, key_id=keys.first, ciphertext=sealed)


def _rotate_webhooks(database: Database, keys: Keys) -> int:
    """Encrypt the secrets that sign anew; return how many."""
    done = 0
    while True:
        with database.read() as tx:
            rows = webhooks.not_under(tx, keys.first, limit=_BATCH)
        if not rows:
            return done
        with database.write("secrets.rotate") as tx:
            for row in rows:
                subject = hooking.subject(row)
                sealed = keys.seal(keys.open(row["ciphertext"], **subject), **subject)
                done += webhooks.encrypt_anew(tx, row, key_id=keys.first, ciphertext=sealed)
