"""Decode steps as captured graphs: the same tokens, and that they were taken."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from stage_servers.engine.gpu.graphs import SIZES, DecodeGraphs
from stage_servers.engine.loader import load_model
from tests.gpu import needs_gpu
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench
from tests.stage_servers.engine.test_device import spec

pytestmark = [pytest.mark.gpu, needs_gpu]


def graphs(bench: Bench) -> DecodeGraphs:
    found: Any = bench.engine._runner
    assert isinstance(found._graphs, DecodeGraphs)
    return found._graphs


def test_decodes_in_graphs_equal_those_without(pair: Pair) -> None:
    """Batches that grow and shrink over several graphs' sizes, prompts in chunks beside them."""
    model = load_model(pair.path, device="cuda:0")
    answers = []
    for is_captured in (True, False):
        bench = Bench(model, max_batch_tokens=64)
        captured = graphs(bench)
        if not is_captured:
            bench.engine._runner._graphs = None  # type: ignore[attr-defined]
        for number in range(11):
            bench.engine.add_prefill(spec(f"r{number}", 9 + 17 * number, 6 + 2 * number), hand_over=False)
        bench.run()
        assert bench.num_held == 0
        assert (captured.num_replays > 0) == is_captured
        answers.append(bench.tokens)
    assert answers[0] == answers[1]
    assert {len(tokens) for tokens in answers[0].values()} == {6 + 2 * number for number in range(11)}


def test_preparing_captures_all_that_steps_need(first: Pair) -> None:
    model = load_model(first.path, device="cuda:0")
    bench = Bench(model, num_blocks=64, max_sequences=20)
    found = graphs(bench)
    with torch.inference_mode():
        found.prepare(20)
    assert tuple(found._captured) == tuple(size for size in SIZES if size <= 24)
    bench.engine.add_prefill(spec("a", 20, 5), hand_over=False)
    bench.run()
    assert found.num_replays == 4
    assert tuple(found._captured) == tuple(size for size in SIZES if size <= 24)


def test_graphs_leave_no_memory_behind(first: Pair) -> None:
    model = load_model(first.path, device="cuda:0")

    def use() -> int:
        bench = Bench(model, num_blocks=64)
        bench.engine.add_prefill(spec("a", 20, 5), hand_over=False)
        bench.run()
        assert graphs(bench).num_replays == 4
        bench.engine.close()
        del bench
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    gc.collect()
    found = [use() for _ in range(4)]
    assert found[-1] <= found[1]  # others' memory may go meanwhile
