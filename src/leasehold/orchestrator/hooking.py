"""
Webhooks: made, changed and deleted by people; what is owed to them is sent by couriers.

The secret that signs is made here, given out once, and kept encrypted beside its webhook. After
a new one was made the old one signs as well for a day, so that a receiver can change over. A
webhook that is disabled is owed nothing: what waits for it is given up, and can be sent again
by hand.
"""

import json
from typing import Any, Final, Protocol

from leasehold import seams
from leasehold.domain import webhooks as hooks
from leasehold.domain.lifecycle import DeliveryStatus
from leasehold.errors import ConflictError, SecretUnavailableError
from leasehold.ids import new_id
from leasehold.orchestrator.jobs import us
from leasehold.store import moves, slots, webhooks
from leasehold.store.database import Row, Tx

GIVEN_UP_AT_ONCE: Final = 1000
"""So much of what waits is given up with the webhook's disabling; the rest by the couriers."""

DISABLED: Final = "the webhook is disabled"


class Keys(Protocol):
    """What encrypts (`vault.keys`)."""

    @property
    def first(self) -> str:
        """Return the id of the key that encrypts."""

    def seal(self, value: str, *, tenant_id: str, name: str, version: int) -> str: ...
    def open(self, ciphertext: str, *, tenant_id: str, name: str, version: int) -> str: ...


def subject(row: Row) -> dict[str, Any]:
    """Return what the ciphertext of a webhook belongs to; no secret may be called so."""
    name = f"webhook:{row['id']}"
    return {"tenant_id": row["tenant_id"], "name": name, "version": row["version"]}


def create(
    tx: Tx, keys: Keys, spec: hooks.WebhookSpec, *, tenant_id: str, actor: str
) -> tuple[Row, str]:
    """
    Save a webhook; return its row and its secret, which nobody is told again.

    Raises:
        ConflictError: The name is taken.
    """
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    if webhooks.find_by_name(tx, spec.name, tenant_id=tenant_id) is not None:
        raise ConflictError(f"webhook {spec.name} exists already")
    row: Row = {"id": new_id(), "tenant_id": tenant_id, "version": 1}
    secret = hooks.secret_text(seams.entropy(hooks.SECRET_BYTES))
    sealed = keys.seal(json.dumps({"now": secret}), **subject(row))
    given = spec.model_dump(mode="json")
    row = webhooks.insert(tx, {**row, **given, "key_id": keys.first, "ciphertext": sealed})
    _record(tx, "webhook.created", row, actor=actor)
    return row, secret


def change(
    tx: Tx, name: str, wanted: hooks.WebhookChange, *, tenant_id: str, actor: str
) -> Row:
    """
    Change what is given of a webhook.

    Raises:
        NotFoundError: The tenant has no such webhook.
        ConflictError: It was deleted meanwhile.
    """
    row = webhooks.get(tx, name, tenant_id=tenant_id)
    given = wanted.model_dump(mode="json", exclude_unset=True)
    changed = {field: value for field, value in given.items() if row[field] != value}
    if not changed:
        return row
    if "url" in changed or changed.get("enabled"):
        # Another receiver, or one that was mended: its past failures say nothing.
        changed |= {"failures": 0, "rests_until": None}
    after = webhooks.change(tx, row["id"], **changed)
    if after is None:
        raise _gone(name)
    if not after["enabled"]:
        for delivery in webhooks.open_of(tx, row["id"], limit=GIVEN_UP_AT_ONCE):
            give_up(tx, delivery, DISABLED)
    _record(tx, "webhook.changed", row, changed=sorted(given), actor=actor)
    return after


def give_up(tx: Tx, delivery: Row, why: str) -> None:
    """Try a delivery no more; the caller has locked it, or it is his."""
    webhooks.move(
        tx,
        delivery,
        DeliveryStatus.FAILED,
        next_at=None,
        finished_at=tx.stamp(),
        last_error=why,
    )
    data = {"webhook": delivery["webhook_id"], "why": why}
    moves.record(
        tx,
        ("webhook.gave_up", data),
        tenant_id=delivery["tenant_id"],
        run_id=delivery["run_id"],
    )


def new_secret(tx: Tx, keys: Keys, name: str, *, tenant_id: str, actor: str) -> tuple[Row, str]:
    """
    Make another secret; the one before signs as well for a day.

    Raises:
        NotFoundError: The tenant has no such webhook.
        SecretUnavailableError: No key decrypts the one before.
        ConflictError: It was deleted or got another one meanwhile.
    """
    row = webhooks.get(tx, name, tenant_id=tenant_id)
    before = json.loads(keys.open(row["ciphertext"], **subject(row)))["now"]
    secret = hooks.secret_text(seams.entropy(hooks.SECRET_BYTES))
    until = tx.now() + us(hooks.OLD_SECRET_KEPT)
    text = json.dumps({"now": secret, "before": before, "before_until": until})
    following = {**row, "version": row["version"] + 1}
    sealed = keys.seal(text, **subject(following))
    done = webhooks.reseal(
        tx, row, key_id=keys.first, ciphertext=sealed, version=following["version"]
    )
    if done is None:
        raise _gone(name)
    _record(tx, "webhook.new_secret", row, actor=actor)
    return done, secret


def secrets_of(keys: Keys | None, row: Row, *, now_us: int) -> list[str]:
    """
    Return the secrets that sign a webhook's messages now, the current one first.

    Raises:
        SecretUnavailableError: There are no keys here, or none decrypts it.
    """
    if keys is None:
        raise SecretUnavailableError("this host has no keys: LEASEHOLD_SECRET_KEYS_FILE")
    kept = json.loads(keys.open(row["ciphertext"], **subject(row)))
    found = [kept["now"]]
    if kept.get("before") and now_us < kept["before_until"]:
        found.append(kept["before"])
    return found


def delete(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Delete a webhook and what is owed to it.

    Raises:
        NotFoundError: The tenant has no such webhook.
    """
    row = webhooks.get(tx, name, tenant_id=tenant_id)
    webhooks.delete(tx, row["id"])
    _record(tx, "webhook.deleted", row, actor=actor)
    return row


def redeliver(tx: Tx, name: str, delivery_id: str, *, tenant_id: str, actor: str) -> Row:
    """
    Send once more what was delivered or given up, under the same id.

    Raises:
        NotFoundError: The tenant has no such webhook, or it no such delivery.
        ConflictError: It waits or is under way, or the webhook is disabled.
    """
    row = webhooks.get(tx, name, tenant_id=tenant_id)
    delivery = webhooks.get_delivery(tx, delivery_id, webhook_id=row["id"])
    if not row["enabled"]:
        raise ConflictError(f"webhook {row['name']} is disabled")
    now = delivery["now_us"]
    moved = webhooks.move(
        tx,
        delivery,
        DeliveryStatus.PENDING,
        fence=delivery["fence"] + 1,
        next_at=now,
        owed_at=now,
        attempts=0,
        finished_at=None,
    )
    if moved is None:
        raise ConflictError(f"delivery {delivery_id} is not over: it is tried by itself")
    webhooks.change(tx, row["id"], rests_until=None)
    _record(tx, "webhook.redelivered", row, delivery=delivery_id, actor=actor)
    return moved


def _gone(name: str) -> ConflictError:
    return ConflictError(f"webhook {name} was changed meanwhile; look again")


def _record(tx: Tx, event: str, row: Row, **data: Any) -> None:
    moves.record(tx, (event, {"webhook": row["name"], **data}), tenant_id=row["tenant_id"])
