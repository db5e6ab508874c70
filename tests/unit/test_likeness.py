"""Which failures count as one."""

import pytest

from leasehold.domain.likeness import fingerprint, pattern


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("exit code 3 after 1.5 s", "exit code <n> after <n> s"),
        ("run 0190d3a4-0000-7000-8000-00000000abcd is gone", "run <id> is gone"),
        ("image deadbeefdeadbeef1 missing", "image <id> missing"),
        ("cannot reach 10.0.0.7:5432", "cannot reach <address>"),
        ("at 2026-11-25T10:00:00.5Z it broke", "at <time> it broke"),
        ("facade and decade stay", "facade and decade stay"),
        ("two\n  lines", "two lines"),
        (None, ""),
    ],
)
def test_what_varies_is_replaced_by_its_kind(message: str | None, shown: str) -> None:
    assert pattern(message) == shown


def test_a_long_message_is_cut() -> None:
    assert len(pattern("x" * 1_000_000)) == 300


def test_alike_is_what_differs_in_numbers_only() -> None:
    one = fingerprint("command_failed", 1, "pytest", "3 failed in 12.1 s")
    assert one == fingerprint("command_failed", 1, "pytest", "17 failed in 9 s")
    assert len(one) == 12
    others = {
        fingerprint("command_killed", 1, "pytest", "3 failed in 12.1 s"),
        fingerprint("command_failed", 2, "pytest", "3 failed in 12.1 s"),
        fingerprint("command_failed", 1, "make", "3 failed in 12.1 s"),
        fingerprint("command_failed", 1, "pytest", "no tests"),
    }
    assert len(others | {one}) == 5


def test_half_a_character_has_a_fingerprint_too() -> None:
    assert fingerprint(None, None, "\ud800", "\udfff")
