"""The search for planted secrets finds what was said, in any form, and nothing else."""

import base64
import sqlite3
from urllib.parse import quote

import pytest

from leasehold.simulation import simulate
from leasehold.simulation.planted import NAMES, Planted


@pytest.fixture(params=range(6))
def planted(request: pytest.FixtureRequest) -> Planted:
    found = Planted(request.param)
    for name in NAMES:
        found.draw(name)
    return found


@pytest.mark.parametrize(
    "told",
    [
        lambda value: value,
        lambda value: value.splitlines()[0],
        lambda value: quote(value, safe=""),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.urlsafe_b64encode(b"a" + value.encode() + b"\n").decode(),
        lambda value: base64.b64encode(b"user:" + value.encode() + b"@host").decode(),
        lambda value: repr({"env": value}),
    ],
)
def test_a_value_is_found_in_each_of_its_forms(planted: Planted, told: object) -> None:
    assert callable(told)
    for value in planted.values:
        before = len(planted.leaks)
        planted.look("a test", f"it is {told(value)}, they say")
        assert len(planted.leaks) == before + 1


def test_what_is_hidden_or_another_seeds_is_not_found(planted: Planted) -> None:
    whole = "".join(f"X={value}\n" for value in planted.values).encode()
    planted.look("a test", planted.as_stored(whole), planted.as_stored(base64.b64encode(whole)))
    planted.look("a test", Planted(77).draw("own"), planted.keys.first)
    assert planted.leaks == []


def test_every_row_is_looked_through(planted: Planted) -> None:
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE TABLE things (id INTEGER, kept TEXT, bytes BLOB)")
    raw.execute("INSERT INTO things VALUES (1, 'fine', NULL)")
    planted.look_through(raw)
    assert planted.leaks == []
    value = planted.values[0]
    raw.execute("INSERT INTO things VALUES (2, ?, ?)", (value, value.encode()))
    planted.look_through(raw)
    assert len(planted.leaks) == 2
    raw.close()


def test_seeds_give_secrets_to_commands_and_providers_and_change_them() -> None:
    reached = sum(
        (simulate(seed, storm=False).reached for seed in (3, 5, 8)), start=simulate(1).reached
    )
    assert reached["secret.set"] > len(NAMES) * 3
