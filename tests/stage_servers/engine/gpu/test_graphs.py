"""Steps as captured graphs: the same tokens and KV, and that they were taken."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from stage_servers.engine.gpu.graphs import StepGraphs, needed_sizes
from stage_servers.engine.loader import load_model
from stage_servers.engine.records import WrittenChunk
from tests.exactness import make_spec
from tests.gpu import needs_gpu
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench
from tests.stage_servers.engine.test_device import spec

pytestmark = [pytest.mark.gpu, needs_gpu]


def graphs(bench: Bench) -> StepGraphs:
    found: Any = bench.engine._runner
    assert isinstance(found._graphs, StepGraphs)
    return found._graphs


def start_one_by_one(bench: Bench) -> None:
    """Steps' kernels from now on."""
    runner: Any = bench.engine._runner
    runner._graphs = None


def test_steps_in_graphs_equal_those_without(pair: Pair) -> None:
    """Batches that grow and shrink over several graphs' sizes, prompts in chunks beside them and alone."""
    model = load_model(pair.path, device="cuda:0")
    answers = []
    for is_captured in (True, False):
        bench = Bench(model, max_batch_tokens=64)
        captured = graphs(bench)
        if not is_captured:
            start_one_by_one(bench)
        for number in range(11):
            bench.engine.add_prefill(spec(f"r{number}", 9 + 17 * number, 6 + 2 * number), hand_over=False)
        bench.run()
        assert bench.num_held == 0
        assert (captured.num_replays > 0) == (captured.num_chunk_replays > 0) == is_captured
        if is_captured:
            assert {size.decodes > 0 for size in captured.sizes if size.chunk_rows} == {True, False}
        answers.append(bench.tokens)
    assert answers[0] == answers[1]
    assert {len(tokens) for tokens in answers[0].values()} == {6 + 2 * number for number in range(11)}


def test_preparing_captures_all_that_steps_need(first: Pair) -> None:
    model = load_model(first.path, device="cuda:0")
    bench = Bench(model, num_blocks=64, max_sequences=20)
    found = graphs(bench)
    with torch.inference_mode():
        found.prepare(20, 512)
    assert found.sizes == set(needed_sizes(20, 512))
    bench.engine.add_prefill(spec("a", 20, 5), hand_over=False)
    bench.run()
    assert (found.num_replays, found.num_chunk_replays) == (4, 1)
    assert found.sizes == set(needed_sizes(20, 512))


class Heard:
    """What a listener was told of layers."""

    def __init__(self) -> None:
        self.layers: list[int] = []

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        assert chunks
        self.layers.extend(layers)


def test_chunks_in_graphs_write_the_kv_of_those_without(pair: Pair) -> None:
    """Pictures in a prompt that is handed over, whose layers are told of in order, while another decodes."""
    model = load_model(pair.path, device="cuda:0")
    question = pair.question(5, num_text=30, pictures=[(112, 112), (90, 60)])
    pools = []
    for is_captured in (True, False):
        heard = Heard()
        bench = Bench(model, listener=heard)
        captured = graphs(bench)
        if not is_captured:
            start_one_by_one(bench)
        bench.engine.add_prefill(spec("beside", 40, 4), hand_over=False)
        bench.step()
        asked = make_spec(pair.oracle.family, question, "asked")
        bench.start(asked, question, hand_over=True)
        bench.run()
        assert captured.num_chunk_replays == (2 if is_captured else 0)
        assert heard.layers == list(range(model.num_layers))
        blocks = bench.engine.block_ids(asked.key)
        kv = bench.pool[:, blocks].flatten(1, 2)[:, : len(asked.prompt)]
        pools.append((kv.cpu(), bench.tokens))
        assert bench.engine.release(asked.key)
        assert bench.num_held == 0
    assert pools[0][1] == pools[1][1]
    assert torch.allclose(pools[0][0], pools[1][0], atol=1e-4)


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
