"""
Sends webhooks what they are owed: claim, post, record.

Authority is SQL. The transaction that ends a run writes a row for each webhook that wants it
(`store.webhooks.owe`), so no end is lost. A courier claims rows by raising their fence, with
`next_at` at the time at which it counts as dead; posts, with no transaction open; and records
what came of it with its fence. Killed before the post: the row is due again when the claim is
over. Killed after it: the receiver gets the same id once more, and that is what the id is for
(at least once). A courier that slept past its claim records nothing: its fence is old.

A webhook that fails again and again rests (`CIRCUIT_AFTER`): then one delivery tries whether it
is well, chosen by compare-and-set on the webhook's row, and all others wait. So a dead receiver
costs one connection now and then, however much is owed to it, and no other webhook waits for
it: each has a few deliveries under way at most. What is older than `GIVE_UP` is tried no more.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from leasehold import __version__, seams
from leasehold.domain import webhooks as hooks
from leasehold.domain.lifecycle import DeliveryStatus
from leasehold.domain.retry import backoff
from leasehold.errors import SecretUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator import hooking
from leasehold.orchestrator.jobs import Context, us
from leasehold.outbound.posting import Reply
from leasehold.provider.budget import boot_time
from leasehold.store import views, webhook_views, webhooks
from leasehold.store.database import Row, Tx

log = get_logger(__name__)
EACH: Final = 2
"""Deliveries to one webhook that one courier has under way at once."""

OLD_AT_ONCE: Final = 100
GONE: Final = 410
_TOO_OLD: Final = f"not delivered within {hooks.GIVE_UP.total_seconds() / 3600:g} h"
_SECOND_NS: Final = 1_000_000_000

Post = Callable[[str, Mapping[str, str], bytes], Reply]
Secrets = Callable[[Row, int], list[str]]
"""Of a webhook's row at a time; raises `SecretUnavailableError`."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A claimed delivery with all that is needed to send it."""

    webhook: Row
    delivery: Row
    body: bytes


def claim(
    context: Context, *, room: int, hold: timedelta, busy: Mapping[str, int]
) -> list[Letter]:
    """
    Claim up to `room` deliveries that are due, and give up those that nobody is to get.

    Args:
        hold: So long a claim is ours; longer than a post may take.
        busy: How many deliveries to a webhook this courier has under way.
    """
    with context.database.read() as tx:
        due = webhooks.due(tx, limit=room + len(busy))
    letters: list[Letter] = []
    for webhook in due:
        most = min(room - len(letters), EACH - busy.get(webhook["id"], 0))
        if most <= 0:
            continue
        with context.database.write("webhook.claim") as tx:
            letters += _claim_of(tx, context, webhook, most=most, hold_us=us(hold))
    return letters


def _claim_of(
    tx: Tx, context: Context, webhook: Row, *, most: int, hold_us: int
) -> list[Letter]:
    webhook_id = webhook["id"]
    if not webhook["enabled"]:
        for row in webhooks.open_of(tx, webhook_id, limit=OLD_AT_ONCE):
            hooking.give_up(tx, row, hooking.DISABLED)
        return []
    # A clock that was set forward must not make everything old.
    if context.pace.is_sane(tx.now(), at=boot_time()):
        age_us = us(hooks.GIVE_UP)
        for row in webhooks.too_old(tx, webhook_id, after_us=age_us, limit=OLD_AT_ONCE):
            hooking.give_up(tx, row, row["last_error"] or _TOO_OLD)
    if webhook["failures"] >= hooks.CIRCUIT_AFTER:
        if not webhooks.try_again(tx, webhook, hold_us=hold_us):
            return []
        most = 1
    claimed = webhooks.claim(tx, webhook_id, hold_us=hold_us, limit=most)
    runs = views.run_rows(tx, [row["run_id"] for row in claimed])
    letters = []
    for row in claimed:
        run = runs.get(row["run_id"])
        if run is None:
            hooking.give_up(tx, row, "its run was deleted")
            continue
        shape = webhook_views.told(run)
        message = hooks.payload(row["event"], shape, at=shape["finished_at"])
        letters.append(Letter(webhook, row, json.dumps(message, ensure_ascii=False).encode()))
    return letters


def deliver(context: Context, letter: Letter, *, post: Post, secrets: Secrets) -> None:
    """Send one letter and record what came of it."""
    try:
        signing = secrets(letter.webhook, letter.delivery["now_us"])
    except SecretUnavailableError as error:
        # Ours to mend; it says nothing about the receiver.
        with context.database.write("webhook.unsigned") as tx:
            _put_off(tx, context, letter.delivery, Reply(problem=f"cannot be signed: {error}"))
        return
    message_id = str(letter.delivery["id"])
    headers = {
        "content-type": "application/json",
        "user-agent": f"Leasehold/{__version__}",
        **hooks.headers(
            signing,
            message_id=message_id,
            # The receiver compares it with its own clock, not with our database's.
            timestamp_s=seams.wall_ns() // _SECOND_NS,
            body=letter.body,
        ),
    }
    with seams.effect("webhook.post"):
        reply = post(letter.webhook["url"], headers, letter.body)
    with context.database.write("webhook.record") as tx:
        _record(tx, context, letter, reply)


def _record(tx: Tx, context: Context, letter: Letter, reply: Reply) -> None:
    delivery, webhook_id = letter.delivery, letter.webhook["id"]
    told = {"last_status": reply.status, "last_error": reply.problem}
    if reply.problem is None:
        tx.now()
        ours = webhooks.move(
            tx,
            delivery,
            DeliveryStatus.DELIVERED,
            next_at=None,
            finished_at=tx.stamp(),
            **told,
        )
    else:
        ours = _put_off(tx, context, delivery, reply)
    if ours is None:
        log.info("webhook.late", delivery=delivery["id"])
        return
    failed = reply.problem is not None
    failures = webhooks.outcome(
        tx, webhook_id, failed=failed, status=reply.status, error=reply.problem
    )
    if failures >= hooks.CIRCUIT_AFTER:
        tries = failures - hooks.CIRCUIT_AFTER + 1
        wait = backoff(tries, base=hooks.REST_BASE, limit=hooks.REST_MAX, rng=context.rng)
        webhooks.rest(tx, webhook_id, for_us=us(wait))
    if reply.status == GONE:
        # The receiver's own word that it wants no more.
        webhooks.change(tx, webhook_id, enabled=False)
        hooking.give_up(tx, ours, f"{reply.problem}: the webhook is disabled now")
    log.info(
        "webhook.posted",
        webhook=webhook_id,
        delivery=delivery["id"],
        attempt=delivery["attempts"],
        status=reply.status,
        problem=reply.problem,
    )


def _put_off(tx: Tx, context: Context, delivery: Row, reply: Reply) -> Row | None:
    """Let a delivery be tried again later."""
    wait = backoff(
        delivery["attempts"], base=hooks.RETRY_BASE, limit=hooks.RETRY_MAX, rng=context.rng
    )
    if reply.retry_after_s is not None:
        asked = timedelta(seconds=min(reply.retry_after_s, hooks.RETRY_MAX.total_seconds()))
        wait = max(wait, asked)
    return webhooks.move(
        tx,
        delivery,
        None,
        next_at=tx.now() + us(wait),
        last_status=reply.status,
        last_error=reply.problem,
    )


def run_once(
    context: Context, *, post: Post, secrets: Secrets, room: int, hold: timedelta
) -> int:
    """Claim and deliver one after the other; return how many."""
    letters = claim(context, room=room, hold=hold, busy={})
    for letter in letters:
        deliver(context, letter, post=post, secrets=secrets)
    return len(letters)
