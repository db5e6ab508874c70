"""A wall clock that is set is told from time that passes."""

from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.pace import Pace

HOUR_US = 3_600_000_000
START = 1_800_000_000_000_000


def look(pace: Pace, *, at: float, now_us: int, offset_us: int = 0, took: float = 0.01) -> int:
    return pace.jump_us(now_us=now_us, offset_us=offset_us, sent=at, received=at + took)


def started() -> Pace:
    pace = Pace()
    assert look(pace, at=100.0, now_us=START) == 0
    return pace


def test_time_that_passes_is_no_jump_however_long_nobody_looked() -> None:
    pace = started()
    assert look(pace, at=100.0 + 7200, now_us=START + 2 * HOUR_US) == 0


def test_a_clock_that_was_set_is_a_jump_until_it_is_corrected() -> None:
    pace = started()
    jumped = START + 3 * HOUR_US + 2_000_000
    assert look(pace, at=102.0, now_us=jumped) == 3 * HOUR_US
    assert look(pace, at=102.5, now_us=jumped + 500_000) == 3 * HOUR_US
    corrected = jumped + 1_000_000 - 3 * HOUR_US
    assert look(pace, at=103.0, now_us=corrected, offset_us=-3 * HOUR_US) == 0


def test_a_small_step_is_left_alone() -> None:
    pace = started()
    assert look(pace, at=102.0, now_us=START + 6_000_000) == 0, "four seconds fast"
    assert look(pace, at=104.0, now_us=START + 8_000_000) == 0


def test_a_slow_answer_proves_nothing_and_does_not_move_the_reference() -> None:
    pace = started()
    assert look(pace, at=102.0, now_us=START + HOUR_US, took=30.0) == 0
    assert look(pace, at=140.0, now_us=START + 40_000_000) == 0


def test_what_another_changed_while_the_raw_clock_went_evenly_is_taken_for_right() -> None:
    pace = started()
    moved = START + 2_000_000 - HOUR_US
    assert look(pace, at=102.0, now_us=moved, offset_us=-HOUR_US) == 0
    assert look(pace, at=104.0, now_us=moved + 2_000_000, offset_us=-HOUR_US) == 0


def test_a_jump_on_top_of_a_correction_is_corrected_too() -> None:
    pace = started()
    # The raw clock has gone back an hour more than somebody has just put it forward.
    now = START + 2_000_000 - 2 * HOUR_US + HOUR_US
    assert look(pace, at=102.0, now_us=now, offset_us=HOUR_US) == -HOUR_US


@given(st.integers(-(10**6), 10**6), st.floats(0, 10**6))
def test_whatever_jumps_the_correction_makes_time_go_on(jump_s: int, passed_s: float) -> None:
    pace = started()
    at = 100.0 + passed_s
    right = START + int(passed_s * 1e6)
    jump = look(pace, at=at, now_us=right + jump_s * 1_000_000)
    assert abs(jump_s * 1_000_000 - jump) <= 6_000_000
    assert look(pace, at=at + 1, now_us=right + 1_000_000, offset_us=-jump) == 0
