"""The arrows are complete, and every status can be reached and left as the design says."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from leasehold.domain import lifecycle as life

Moves = Mapping[Any, frozenset[Any]]
TABLES: list[tuple[type[StrEnum], Moves, StrEnum]] = [
    (life.RunStatus, life.RUN_MOVES, life.RunStatus.QUEUED),
    (life.LeaseStatus, life.LEASE_MOVES, life.LeaseStatus.ACQUIRING),
    (life.ExecutionStatus, life.EXECUTION_MOVES, life.ExecutionStatus.STARTING),
    (life.EnvironmentStatus, life.ENVIRONMENT_MOVES, life.EnvironmentStatus.ACTIVE),
    (life.WorkerStatus, life.WORKER_MOVES, life.WorkerStatus.STARTING),
    (life.SessionStatus, life.SESSION_MOVES, life.SessionStatus.LIVE),
]
each_table = pytest.mark.parametrize(
    ("kind", "moves", "first"), TABLES, ids=[kind.__name__ for kind, _, _ in TABLES]
)


def reach(moves: Moves, start: StrEnum) -> set[StrEnum]:
    seen, ahead = {start}, [start]
    while ahead:
        new = moves[ahead.pop()] - seen
        seen |= new
        ahead += new
    return seen


@each_table
def test_every_status_has_its_row(kind: type[StrEnum], moves: Moves, first: StrEnum) -> None:
    assert set(moves) == set(kind)


@each_table
def test_no_status_moves_to_itself(kind: type[StrEnum], moves: Moves, first: StrEnum) -> None:
    assert not [status for status in kind if status in moves[status]]


@each_table
def test_every_status_can_be_reached(kind: type[StrEnum], moves: Moves, first: StrEnum) -> None:
    assert reach(moves, first) == set(kind)


@each_table
def test_sources_are_the_arrows_read_backwards(
    kind: type[StrEnum], moves: Moves, first: StrEnum
) -> None:
    for to in kind:
        before = {status for status in kind if to in moves[status]}
        assert life.sources(moves, to) == before


@pytest.mark.parametrize(
    ("moves", "ends"),
    [
        (life.RUN_MOVES, life.RUN_ENDS),
        (life.LEASE_MOVES, life.LEASE_ENDS),
        (life.EXECUTION_MOVES, life.EXECUTION_ENDS),
    ],
)
def test_from_everywhere_there_is_a_way_to_an_end(moves: Moves, ends: frozenset[Any]) -> None:
    assert ends == {status for status, targets in moves.items() if not targets}
    for status in moves:
        assert reach(moves, status) & ends


def test_a_run_succeeds_only_from_running() -> None:
    assert life.sources(life.RUN_MOVES, life.RunStatus.SUCCEEDED) == {life.RunStatus.RUNNING}


def test_a_lease_ends_only_through_releasing() -> None:
    for end in life.LEASE_ENDS:
        assert life.sources(life.LEASE_MOVES, end) == {life.LeaseStatus.RELEASING}


def test_an_acknowledged_start_may_still_be_proven_never_to_have_happened() -> None:
    # `start` returns once its claim is durable; a take-over can win `go` before the command.
    running = life.EXECUTION_MOVES[life.ExecutionStatus.RUNNING]
    assert life.ExecutionStatus.CANCELLED in running


def test_a_lease_that_is_owed_to_the_provider_still_takes_its_slot() -> None:
    assert life.LeaseStatus.RELEASING in life.LEASE_HOLDS_SLOT
    assert not life.LEASE_HOLDS_SLOT & life.LEASE_ENDS
