"""Predictions follow what is measured, within bounds, and never fall with more work."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.correction import LEAST, MOST, Correction
from coordinator.policy.cost_model import CostModel
from core.costs import StepCosts, StepShape, chunk_shape, decode_shape
from core.profile_file import load_profile, shipped_profiles
from tests.core.profiles import PROFILE

scales = st.floats(0.3, 3.5)
likely = st.floats(0.5, 2.5)
counts = st.integers(0, 20_000)
shapes = st.builds(StepShape, counts, st.floats(0, 1e8), counts, st.integers(0, 10**6))


def scaled_truth(fixed: float, of_bytes: float, of_flops: float) -> StepCosts:
    step = PROFILE.step
    return StepCosts(step.fixed_s * fixed, step.bytes.scaled(of_bytes), step.flops.scaled(of_flops))


def random_shape(draw: random.Random) -> StepShape:
    if draw.random() < 0.5:
        return decode_shape(batch := draw.randint(1, 128), batch * draw.randint(10, 3000))
    return chunk_shape(draw.randint(64, 2048), draw.randint(0, 2048))


def learn(truth: StepCosts, outliers: float, steps: int = 800) -> CostModel:
    draw, model = random.Random(1), CostModel(PROFILE)
    for _ in range(steps):
        shape = random_shape(draw)
        hiccup = 50 if draw.random() < outliers else 1
        model.note_step(shape, truth.step_s(shape) * draw.gauss(1, 0.02) * hiccup)
    return model


@settings(max_examples=15)
@given(st.floats(0.5, 2), likely, likely, st.sampled_from([0.0, 0.05]))
def test_predictions_converge_to_what_is_measured(
    fixed: float, of_bytes: float, of_flops: float, outliers: float
) -> None:
    truth = scaled_truth(fixed, of_bytes, of_flops)
    model, draw = learn(truth, outliers), random.Random(2)
    tried = [random_shape(draw) for _ in range(50)]
    assert fmean(abs(model.step_s(each) / truth.step_s(each) - 1) for each in tried) < 0.06


def test_the_factors_are_the_true_ones() -> None:
    factors = learn(scaled_truth(1.5, 2.0, 0.5), outliers=0.0).factors
    assert factors["bytes"] == pytest.approx(2.0, rel=0.1)
    assert factors["flops"] == pytest.approx(0.5, rel=0.05)


@given(
    st.lists(st.tuples(shapes, st.floats(allow_nan=True, allow_infinity=True)), max_size=60), shapes, shapes
)
def test_whatever_is_measured_factors_stay_bounded_and_predictions_monotone(
    measured: list[tuple[StepShape, float]], shape: StepShape, more: StepShape
) -> None:
    model = CostModel(PROFILE)
    for at, seconds in measured:
        model.note_step(at, seconds)
        model.note_encode(at.new_tokens, seconds)
    assert all(LEAST <= factor <= MOST for factor in model.factors.values())
    assert model.step_s(shape) <= model.step_s(shape.plus(more))
    assert model.encode_s(shape.new_tokens) <= model.encode_s(shape.new_tokens + more.new_tokens)
    assert 1 <= model.decode_knee() <= PROFILE.max_sequences


@given(scales)
def test_encodes_and_moves_are_corrected_too(scale: float) -> None:
    model = CostModel(PROFILE)
    for num_tokens in [100, 700, 3000] * 100:
        model.note_encode(num_tokens, PROFILE.encode.encode_s(num_tokens) * scale)
        model.note_kv_move(
            num_tokens, PROFILE.kv_move.move_s(num_tokens * PROFILE.kv_bytes_per_token) * scale
        )
        size = num_tokens * PROFILE.embedding_bytes_per_token
        model.note_embedding_move(num_tokens, PROFILE.embedding_move.move_s(size) * scale)
    found = [model.factors[name] for name in ("encode", "kv_move", "embedding_move")]
    assert found == pytest.approx([scale] * 3, rel=0.05)
    assert model.kv_move_s(500) == pytest.approx(scale * CostModel(PROFILE).kv_move_s(500), rel=0.05)
    assert model.embedding_move_s(5) == pytest.approx(
        scale * CostModel(PROFILE).embedding_move_s(5), rel=0.05
    )


def test_one_hiccup_moves_little() -> None:
    model = learn(scaled_truth(1, 1, 1), outliers=0.0)
    before = model.decode_step_s(8, 8000)
    model.note_step(decode_shape(8, 8000), 100 * before)
    assert model.decode_step_s(8, 8000) == pytest.approx(before, rel=0.02)


def test_a_change_that_lasts_is_followed() -> None:
    model = learn(scaled_truth(1, 1, 1), outliers=0.0)
    slow, draw = scaled_truth(2, 2, 2), random.Random(3)
    for _ in range(600):
        shape = random_shape(draw)
        model.note_step(shape, slow.step_s(shape))
    assert model.decode_step_s(8, 8000) == pytest.approx(slow.decode_step_s(8, 8000), rel=0.05)


@pytest.mark.parametrize("name", shipped_profiles())
def test_the_knee_is_where_larger_batches_stop_paying(name: str) -> None:
    model = CostModel(load_profile(name))
    knee = model.decode_knee(1024)

    def each_s(batch: int) -> float:
        return model.decode_step_s(batch, batch * 1024) / batch

    assert knee == 1 or each_s(2 * knee - 2) <= 0.75 * each_s(knee - 1)
    assert knee == model.profile.max_sequences or each_s(2 * knee) > 0.75 * each_s(knee)
    assert model.decode_work_s(10, 1024) == pytest.approx(10 * each_s(knee))


def test_the_tipping_point_follows_the_correction() -> None:
    model = CostModel(PROFILE)
    before = model.tipping_tokens()
    for size in [600, 1200, 2000] * 200:
        model.note_step(chunk_shape(size), 3 * PROFILE.step.step_s(chunk_shape(size)))
    assert model.tipping_tokens() < before / 2


def test_prompts_count_media_as_the_model_takes_it_in() -> None:
    beside = CostModel(replace(PROFILE, cross_attention_share=0.25))
    assert beside.prompt_s(40, 4000) == pytest.approx(beside.prefill_s(40, context_tokens=1000))
    assert CostModel(PROFILE).prompt_s(40, 4000, 100) == pytest.approx(
        CostModel(PROFILE).prefill_s(3940, 100)
    )
    packed = CostModel(PROFILE).batch_prefill_s([100, 300])
    assert packed < CostModel(PROFILE).prefill_s(100) + CostModel(PROFILE).prefill_s(300)


def test_a_part_that_never_shows_keeps_its_factor() -> None:
    correction = Correction(2)
    for _ in range(200):
        correction.note((1.0, 0.0), 2.0)
    assert correction.factors[0] == pytest.approx(2.0, rel=0.01)
    assert correction.factors[1] == 1.0


def test_what_was_predicted_right_changes_nothing() -> None:
    correction = Correction(2)
    assert not correction.note((1.0, 2.0), 3.0)
    assert correction.note((1.0, 2.0), 3.3)
    assert not correction.note((1.0, 2.0), float("nan"))


def test_what_was_predicted_right_teaches_nothing() -> None:
    model = CostModel(PROFILE)
    for shape in (decode_shape(8, 8000), chunk_shape(512)):
        model.note_step(shape, 1.0005 * model.step_s(shape))
    assert (model.version, model.factors["fixed"]) == (0, 1.0)
    model.note_step(decode_shape(8, 8000), 1.01 * model.decode_step_s(8, 8000))
    assert model.version == 1
