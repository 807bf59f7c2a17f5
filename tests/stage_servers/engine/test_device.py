"""What engines do on a device that runs beside the host, on one that has no values at all: torch's "meta".

Whatever reads a value back from there, or mixes it with the host's, raises: a GPU would wait, or fail.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from stage_servers.engine import engine as engine_module
from stage_servers.engine.attention.backend import INTERFACE_NAME, register
from stage_servers.engine.families import adapter_for
from stage_servers.engine.fused import fuse_patches
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from stage_servers.engine.sampler import Drawn
from stage_servers.engine.weights import MappedFiles, restore_buffers
from tests.gpu import needs_gpu
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench
from tests.stage_servers.engine.test_encode_in_parts import pixels, whole


def on_meta(path: Path) -> Model:
    description = load_family(path)
    adapter = adapter_for(description)
    with torch.device("meta"):
        model = adapter.build(path).eval()
    restore_buffers(model)
    family = adapter(model.to("meta"))
    register()
    family.text_config._attn_implementation = INTERFACE_NAME
    return Model(
        path=path,
        description=description,
        family=family,
        processor=None,
        device=torch.device("meta"),
        dtype=torch.float32,
        attention_backend="sdpa",
        fast_path=None,
        bulk_path=None,
        gpu_path=None,
        files=MappedFiles(),
    )


def spec(name: str, num_tokens: int, max_tokens: int = 8) -> SequenceSpec:
    return SequenceSpec(name, 0, tuple(range(1, num_tokens + 1)), SamplingParams(max_tokens))


def test_steps_ask_nothing_of_the_device_but_the_tokens(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def draw(logits: torch.Tensor, rows: list[Any]) -> list[Drawn]:
        assert logits.is_meta
        shapes.append(tuple(logits.shape))
        return [Drawn(1, None) for _ in rows]

    monkeypatch.setattr(engine_module, "sample", draw)
    model = on_meta(pair.path)
    bench = Bench(model, max_batch_tokens=24)
    bench.engine.add_prefill(spec("a", 40), hand_over=False)
    bench.engine.add_prefill(spec("b", 8), hand_over=False)
    for _ in range(4):
        bench.engine.step()
    vocabulary = model.description.vocab_size
    assert shapes == [(2, vocabulary)] * 3  # the first step ends no prompt


def test_encoders_ask_nothing_of_the_device(pair: Pair) -> None:
    model, inputs = on_meta(pair.path), pixels(pair)
    assert fuse_patches(model.family.model) == 1
    found = model.encode(inputs)
    assert all(each.is_meta for each in found)
    assert [each.shape for each in found] == [(each.num_tokens, model.embedding_width) for each in inputs]


def test_patches_go_by_a_matrix_product(pair: Pair) -> None:
    inputs = pixels(pair)
    model = load_model(pair.path, fast_path=False, attention="sdpa")
    assert fuse_patches(model.family.model) == 1
    assert torch.allclose(torch.cat(model.encode(inputs)), whole(pair, inputs), atol=1e-4)


def test_a_step_without_tokens_waits_for_the_device(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its blocks could be given up, and written to by others, before it has written them itself."""
    waited: list[torch.device] = []
    monkeypatch.setattr(engine_module, "await_device", waited.append)
    bench = Bench(first.model, max_batch_tokens=16)
    bench.engine.add_prefill(spec("a", 40), hand_over=False)
    counts = []
    for _ in range(4):
        bench.engine.step()
        counts.append(len(waited))
    assert counts == [1, 2, 2, 2]


@contextmanager
def _no_waiting() -> Iterator[None]:
    """What makes the host wait for the device raises, as far as torch knows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a prototype feature
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
def test_steps_on_a_gpu_wait_for_it_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tokens: all else goes there without the host's waiting."""
    model = load_model(pair.path, device="cuda:0")
    bench = Bench(model, max_batch_tokens=24)
    bench.engine.add_prefill(spec("a", 40), hand_over=False)
    bench.engine.add_prefill(spec("b", 8), hand_over=False)
    bench.engine.step()  # compiles kernels
    bench.engine.step()

    def draw(logits: torch.Tensor, rows: list[Any]) -> list[Drawn]:
        assert logits.is_cuda
        return [Drawn(1, None) for _ in rows]

    monkeypatch.setattr(engine_module, "sample", draw)
    with _no_waiting():
        output = bench.engine.step()
    assert output.num_decode_tokens == 2


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_computes_what_the_cpu_does(pair: Pair) -> None:
    """Pictures, a prompt in chunks beside decodes, and draws in float32."""
    model, inputs = load_model(pair.path, device="cuda:0"), pixels(pair)
    assert torch.allclose(torch.cat(model.encode(inputs)).cpu(), whole(pair, inputs), atol=1e-4)
    answers = []
    for each in (model, pair.model):
        bench = Bench(each, max_batch_tokens=24)
        for number in range(3):
            bench.engine.add_prefill(spec(f"r{number}", 17 + 9 * number), hand_over=False)
        tokens = [token for _ in range(12) for token in bench.engine.step().tokens]
        answers.append(sorted((token.key, token.index, token.token_id) for token in tokens))
    assert answers[0] == answers[1]
    assert len(answers[0]) == 24
