"""Gaps around moves, told from those of undisturbed steps."""

import pytest

from benchmarks.migration import Move, summarize
from elasticmm_client import Migration

MOVED = Migration("a", "b", pause_ms=15.0, size_bytes=4, transport="shm")


def test_a_pause_is_the_widest_gap_less_a_step() -> None:
    arrivals_s, now_s = [0.0], 0.0
    moves = []
    for number in range(5):
        for _ in range(20):
            now_s += 0.010
            arrivals_s.append(now_s)
        moves.append(Move(now_s + 0.001, now_s + 0.012, MOVED))
        now_s += 0.030 + (0.005 if number == 4 else 0)
        arrivals_s.append(now_s)
    measured = summarize("x", arrivals_s, moves)
    assert measured.num_moves == 3
    assert measured.step_ms == pytest.approx(10)
    assert measured.pause_ms == pytest.approx(20)
    assert measured.worst_pause_ms == pytest.approx(25)
    assert (measured.pause_steps, measured.stood_still_steps) == (pytest.approx(2), pytest.approx(1.5))
