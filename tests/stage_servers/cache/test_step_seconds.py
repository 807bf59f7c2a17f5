from __future__ import annotations

import pytest

from core.costs import chunk_shape
from stage_servers.cache.step_seconds import StepSeconds


def test_what_steps_take_is_learned() -> None:
    seconds = StepSeconds()
    for tokens, context in [(100, 0), (100, 900), (50, 300), (10, 2000)]:
        shape = chunk_shape(tokens, context)
        seconds.note(shape, 1e-4 * tokens + 1e-7 * shape.attended)
    assert seconds.of(16, 512) == pytest.approx(1e-4 * 16 + 1e-7 * 16 * 520, rel=1e-3)


def test_of_steps_of_one_shape_the_tokens_are_learned() -> None:
    seconds = StepSeconds()
    assert 0 < seconds.of(16, 0) < 1
    for _ in range(5):
        seconds.note(chunk_shape(100, 100), 0.2)
    assert seconds.of(100, 50_000) == pytest.approx(0.2)


def test_noise_makes_nothing_cost_less_than_nothing() -> None:
    seconds = StepSeconds()
    seconds.note(chunk_shape(100, 10_000), 0.01)
    seconds.note(chunk_shape(100, 0), 0.2)
    assert 0 < seconds.of(16, 100_000) < 1
