"""A token is of one start, of one deployment, and nobody else can make it."""

import pytest

from leasehold.domain import run_tokens
from leasehold.domain.redaction import Redactor

KEY, OTHER = "k" * 64, "o" * 64
START = "01a21354-64fc-769d-b9a0-9ec6248d5b4f.0.1"


def test_a_token_names_its_start_and_only_the_key_makes_it() -> None:
    token = run_tokens.make(KEY, START)
    assert START in token
    assert run_tokens.execution_of(KEY, token) == START
    assert run_tokens.execution_of(OTHER, token) is None
    assert run_tokens.make(KEY, START) == token


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"),
        lambda t: t.replace(".0.1", ".0.2"),
        lambda t: t[:-1],
        lambda t: t + "0",
        lambda t: t.upper(),
        lambda t: t.replace("lht_", "lh_"),
        lambda t: t + "\n",
        lambda _: "",
        lambda _: "lht_",
        lambda t: t.replace("lht_", "lht_\u0661"),
    ],
)
def test_what_is_changed_is_no_token(change: object) -> None:
    assert callable(change)
    assert run_tokens.execution_of(KEY, change(run_tokens.make(KEY, START))) is None


def test_without_a_key_nothing_is_a_token() -> None:
    assert run_tokens.execution_of("", run_tokens.make("", START)) is None


def test_what_greets_or_asks_is_never_a_token_of_a_run() -> None:
    made = {
        run_tokens.secret_part(KEY, START),
        run_tokens.greeting(KEY, START).removeprefix(run_tokens.GREETS),
        run_tokens.nonce(KEY, START),
    }
    assert len(made) == 3


def test_what_must_not_be_seen_of_a_token_is_hidden() -> None:
    token = run_tokens.make(KEY, START)
    hider = Redactor.of((run_tokens.secret_part(KEY, START),))
    hidden = hider.hide(f"TOKEN={token}\n".encode()).decode()
    assert START in hidden
    assert run_tokens.execution_of(KEY, hidden.strip().removeprefix("TOKEN=")) is None
    assert hidden.endswith("*" * 32 + "\n")
