"""A tiny model is measured from end to end; what was measured is what was planned."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from core.costs import chunk_shape, decode_shape
from core.profile_file import format_profile, parse_profile
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.segment import SHM_DIR
from stage_servers.config import StageConfig
from stage_servers.engine.model import Model
from stage_servers.profiling import moves
from stage_servers.profiling.plan import DecodePoint, Plan, plan_for
from stage_servers.profiling.profiler import fit_profile, make_plan, measure
from stage_servers.profiling.samples import Measured, SizeSample, least_disturbed
from stage_servers.profiling.steps import StepBench
from stage_servers.profiling.timing import Stopwatch

CORES = (0,)
SMALL = Plan(
    chunk_sizes=(16, 64),
    prompt_tokens=128,
    decodes=(DecodePoint(1, 32), DecodePoint(2, 64), DecodePoint(4, 32)),
    encoded_sides=(56, 112),
    file_sides=(64, 128),
    moved_tokens=(16, 64),
    pool_tokens=1024,
    rounds=2,
    repeats=2,
    point_s=0.0,
)


@pytest.fixture
def pool(model: Model) -> Pool:
    layout = kv_layout(
        model.fingerprint,
        model.dtype,
        num_layers=model.num_layers,
        num_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        block_tokens=16,
    )
    return Pool(layout, 64)


@pytest.fixture
def bench(model: Model, pool: Pool) -> StepBench:
    return StepBench(model, pool, 8, Stopwatch(torch.device("cpu"), repeats=2, point_s=0.0))


def test_a_model_is_measured_and_its_profile_written(model: Model, config: StageConfig) -> None:
    points: list[str] = []
    found = measure(model, config, SMALL, CORES, points.append)
    assert len(points) == SMALL.num_points
    assert set(Counter(points)) == {"prefill", "decode", "mixed steps", "encode", "preprocess", "transfers"}
    assert all(sample.seconds > 0 for sample in found.steps)
    assert all(sample.seconds > 0 for sample in (*found.encodes, *found.pixels, *found.kv_moves))
    profile = fit_profile("tiny", "a tiny model", model, config, found)
    assert parse_profile(format_profile(profile), "tiny.json") == profile
    assert (profile.model, profile.origin) == ("a tiny model", "measured")
    assert profile.kv_tokens == 64 * 16
    assert profile.media.media_tokens(200, 150) == model.description.layout(200, 150).num_tokens
    assert {"prefill_median", "decode_p90", "mixed_median", "kv_move_median"} <= set(profile.fit)
    assert not list(SHM_DIR.glob("elasticmm-profile-*"))


def test_prefill_chunks_run_over_growing_context(bench: StepBench, pool: Pool) -> None:
    found = bench.prefill(16, 128)
    assert [sample.shape for sample in found] == [chunk_shape(16, 16 * at) for at in (0, 1, 2, 4)]
    assert pool.blocks.num_free == pool.num_blocks


def test_decodes_have_the_batch_and_context_asked_for(bench: StepBench, pool: Pool) -> None:
    shape = bench.decode(DecodePoint(4, 64)).shape
    assert shape.sequences == shape.new_tokens == 4
    assert 4 * 64 < shape.context_tokens <= 4 * (64 + 10)
    assert shape == decode_shape(4, shape.context_tokens)
    assert pool.blocks.num_free == pool.num_blocks


def test_mixed_steps_are_both(bench: StepBench, pool: Pool) -> None:
    shape = bench.mixed(DecodePoint(4, 64), 32).shape
    assert shape == decode_shape(4, 4 * 65).plus(chunk_shape(32))
    assert bench.packed(64).shape.sequences == 4
    assert pool.blocks.num_free == pool.num_blocks


def test_a_plan_keeps_to_the_room_that_there_is(model: Model, config: StageConfig) -> None:
    small, large = plan_for(model, config, 600), make_plan(model, config)
    for plan in (small, large):
        assert plan.chunk_sizes[-1] == config.chunk_tokens
        assert plan.prompt_tokens < model.context_tokens
        assert all(point.num_sequences <= config.max_sequences for point in plan.decodes)
        assert all(p.num_sequences * p.context_tokens <= plan.pool_tokens for p in plan.decodes)
    assert len(small.decodes) < len(large.decodes)
    assert len({model.description.layout(side, side).num_tokens for side in large.encoded_sides}) > 3


def test_the_quickest_round_counts() -> None:
    slow, quick = Measured(), Measured()
    for found, seconds in ((slow, (2.0, 5.0)), (quick, (3.0, 4.0))):
        found.encodes.extend([SizeSample(1, seconds[0]), SizeSample(9, seconds[1])])
    assert least_disturbed([slow, quick]).encodes == [SizeSample(1, 2.0), SizeSample(9, 4.0)]


def test_a_second_process_that_does_not_come_up_is_an_error(
    model: Model, config: StageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "_READY_S", 0.0)
    monkeypatch.setattr(moves, "_END_S", 0.0)
    with pytest.raises(RuntimeError, match="did not come up"):
        measure(model, config, replace(SMALL, moved_tokens=(16,)), CORES)
