"""Webhooks that people change, disable and delete, their secrets, and what is pruned."""

from pathlib import Path

import pytest

from leasehold.domain import webhooks as hooks
from leasehold.errors import ConflictError, NotFoundError, SecretUnavailableError
from leasehold.maintenance import pruner
from leasehold.orchestrator import hooking
from leasehold.outbound.posting import Reply
from leasehold.store.database import Row
from leasehold.vault import keeping
from leasehold.vault.keys import Keys, new_key
from webhooks.conftest import Answers, Post

OK = Reply(200)
HOUR_US = 3_600_000_000


def change(post: Post, **values: object) -> Row:
    with post.database.write("test") as tx:
        wanted = hooks.WebhookChange.model_validate(values)
        return hooking.change(tx, "hook", wanted, tenant_id="default", actor="test")


def test_disabled_what_waits_is_given_up_also_what_was_owed_at_that_moment(post: Post) -> None:
    hook, _ = post.hook()
    post.end()
    change(post, enabled=False)
    (row,) = post.owed()
    assert (row["status"], row["last_error"]) == ("failed", "the webhook is disabled")
    with pytest.raises(ConflictError, match="disabled"), post.database.write("test") as tx:
        hooking.redeliver(tx, "hook", row["id"], tenant_id="default", actor="test")
    # A run that ended while it was being disabled has still seen it enabled.
    with post.database.write("test") as tx:
        tx.run("UPDATE webhooks SET enabled = {true}")
    post.end()
    with post.database.write("test") as tx:
        tx.run("UPDATE webhooks SET enabled = {false}")
    assert post.turn(Answers(OK)) == 0
    assert {row["status"] for row in post.owed()} == {"failed"}
    change(post, enabled=True)
    assert hook["id"] == post.shown()["id"]


def test_a_change_names_what_is_different_and_null_is_all_again(post: Post) -> None:
    post.hook(statuses=["failed"], environment="lab")
    after = change(post, statuses=None, url="https://other.example.org/")
    assert (after["statuses"], after["environment"]) == (None, "lab")
    assert after["url"] == "https://other.example.org/"
    assert post.events() == ["webhook.created", "webhook.changed"]


def test_a_deleted_webhook_takes_what_it_is_owed_with_it(post: Post) -> None:
    hook, _ = post.hook()
    post.end()
    with post.database.write("test") as tx:
        hooking.delete(tx, hook["id"], tenant_id="default", actor="test")
    assert post.owed() == []
    with post.database.write("test") as tx, pytest.raises(NotFoundError):
        hooking.delete(tx, "hook", tenant_id="default", actor="test")


def test_after_a_new_secret_the_old_one_signs_for_a_day(post: Post) -> None:
    _, old = post.hook()
    with post.database.write("test") as tx:
        _, new = hooking.new_secret(tx, post.keys, "hook", tenant_id="default", actor="test")
        now = tx.now()
    row = post.shown()
    assert post.secrets(row, now) == [new, old]
    assert post.secrets(row, now + 25 * HOUR_US) == [new]
    post.end()
    receiver = Answers(OK)
    post.turn(receiver)
    assert len(receiver.got[0][1]["webhook-signature"].split(" ")) == 2


def test_secrets_are_encrypted_and_encrypted_anew_with_all_others(
    post: Post, tmp_path: Path
) -> None:
    _, secret = post.hook()
    with post.database.read() as tx:
        whole = str([*tx.all("SELECT * FROM webhooks"), *tx.all("SELECT * FROM events")])
    assert secret not in whole
    path = tmp_path / "two-keys"
    path.write_text(f"{new_key()}\n{(tmp_path / 'secret-keys').read_text()}")
    path.chmod(0o600)
    both = Keys.load(path)
    assert keeping.rotate(post.database, both) == 1
    assert keeping.rotate(post.database, both) == 0
    row = post.shown()
    assert row["key_id"] == both.first
    assert hooking.secrets_of(both, row, now_us=0) == [secret]
    with pytest.raises(SecretUnavailableError):
        hooking.secrets_of(post.keys, row, now_us=0)


def test_deliveries_go_with_time_with_their_run_and_when_owed_to_nobody(post: Post) -> None:
    hook, _ = post.hook()
    post.end()
    post.turn(Answers(OK))
    waits = post.end()
    pruner.may(post.context)
    assert pruner.may(post.context)
    assert pruner.run_once(post.context).deliveries == 0
    report = pruner.run_once(post.context, limits=pruner.Limits(delivery_kept_s=-1))
    assert report.deliveries == 1
    assert [row["run_id"] for row in post.owed()] == [waits["id"]]
    with post.database.write("test") as tx:
        tx.run("DELETE FROM webhooks WHERE id = :id", id=hook["id"])
    assert pruner.run_once(post.context).deliveries == 1
    assert post.owed() == []
