"""Predictions for loads, where measured times have corrected the profile's."""

from __future__ import annotations

import pytest

from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.view import Placement
from core.costs import chunk_shape
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, text
from tests.coordinator.policy.driver import dispatched

CHUNK = chunk_shape(PROFILE.chunk_tokens)


def corrected(factor: float) -> CostModel:
    """Of devices that take so many times the profile's seconds."""
    model = CostModel(PROFILE)
    for _ in range(40):
        model.note_step(CHUNK, factor * PROFILE.step.step_s(CHUNK))
    return model


@pytest.mark.parametrize("factor", [0.8, 1.0, 2.0])
def test_a_decode_lengthens_a_prefill_as_much_on_faster_and_slower_devices(factor: float) -> None:
    """What a chunk takes with it is set against what one takes without it on the same device."""
    costing = Costing(CostModel(PROFILE))
    usual = costing.prefill_stretch(1, 500)
    assert 1 < usual < 1.05
    model = corrected(factor)
    assert Costing(model).prefill_stretch(1, 500) == pytest.approx(usual, rel=1e-3)
    costing.model.note_step(CHUNK, factor * PROFILE.step.step_s(CHUNK))  # after it was built
    assert 1 < costing.prefill_stretch(1, 500) < 1.05
    assert costing.chunk_s == costing.model.step_s(CHUNK)
    assert costing.most_queued_s == costing.chunk_s / 2


@pytest.mark.parametrize("factor", [0.8, 1.0, 2.0])
def test_a_prompt_goes_where_nobody_decodes_if_all_else_is_equal(factor: float) -> None:
    emp = make_scheduler("emp", PROFILE, Slo(2.0, 0.1), model=corrected(1.0))
    books = books_of(instance("a"), instance("b"))
    for _ in range(40):
        emp.note_step("a", CHUNK, factor * PROFILE.step.step_s(CHUNK))
    answer = text("answer")
    books.queue(answer)
    answer.placement = Placement("answer", (), "a", "a", 0.0)
    answer.is_prefilled = answer.is_handed_over = True
    books.note(answer)
    books.queue(text("next", 1.0))
    assert [each.prefill for each in dispatched(emp, books)] == ["b"]


def test_more_sequences_than_a_batch_holds_take_turns() -> None:
    costing = Costing(CostModel(PROFILE), tpot_s=0.02)
    bounded, boundless = instance("a", max_sequences=4), instance("b")
    for sequences, turns in ((3, 1.0), (4, 1.25), (7, 2.0), (11, 3.0)):
        bounded.load.sequences = boundless.load.sequences = sequences
        step_s = costing.promised_step_s(boundless)
        assert costing.promised_step_s(bounded) == pytest.approx(turns * step_s, rel=0.02)
        assert not costing.is_crowded(boundless)
    # With steps of 10 ms and a target of 20, the 0.4th part of an answer may take as long again.
    crowded = []
    for sequences in range(8):
        bounded.load.sequences = sequences
        crowded.append(costing.is_crowded(bounded))
    assert crowded == [False] * 5 + [True] * 3
