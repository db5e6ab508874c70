"""docs/webhooks.md is true: its snippet verifies what a courier sends, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leasehold.orchestrator import hooking
from webhooks.conftest import Post
from webhooks.receiver import receiving

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest.fixture(scope="module")
def verify() -> Callable[..., bool]:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    room: dict[str, Any] = {}
    exec(text, room)  # noqa: S102  it is ours, and what is tested
    found: Callable[..., bool] = room["verify"]
    return found


def test_a_stranger_verifies_a_message_with_the_pages_snippet(
    post: Post, verify: Callable[..., bool]
) -> None:
    with receiving() as receiver:
        _, old = post.hook(receiver.url)
        post.end()
        post.turn()
        with post.database.write("test") as tx:
            _, new = hooking.new_secret(
                tx, post.keys, "hook", tenant_id="default", actor="test"
            )
        post.end("failed")
        post.turn()
        first, second = receiver.got
    headers = {name.lower(): value for name, value in first.headers.items()}
    assert verify(old, headers, first.body)
    assert not verify(new, headers, first.body)
    assert not verify(old, headers, first.body + b" ")
    assert not verify(old, headers | {"webhook-id": "another"}, first.body)
    assert not verify(old, headers | {"webhook-timestamp": "1614265330"}, first.body)
    assert not verify(old, headers | {"webhook-signature": "v1,AAAA"}, first.body)
    both = {name.lower(): value for name, value in second.headers.items()}
    assert verify(old, both, second.body)
    assert verify(new, both, second.body)


def test_what_the_page_shows_has_the_keys_that_are_sent(post: Post) -> None:
    import json

    with receiving() as receiver:
        post.hook(receiver.url)
        post.end("failed", labels={"team": "ci"})
        post.turn()
        sent = json.loads(receiver.got[0].body)
    (text,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = json.loads(text)
    assert set(shown) == set(sent)
    assert set(shown["data"]["run"]) == set(sent["data"]["run"])
