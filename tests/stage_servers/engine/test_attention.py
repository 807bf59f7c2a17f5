"""Every backend equals a plain computation over the same pool; GPU ones where a GPU is."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stage_servers.engine.attention import flash, triton_paged
from stage_servers.engine.attention.backend import AttentionBackend, AttentionShape, PagedStep
from stage_servers.engine.attention.batch import PackedBatch, Segment
from stage_servers.engine.attention.registry import backend_names, choose, make
from stage_servers.engine.families.adapter import MediaRows
from stage_servers.engine.fastpath import FastPath
from stage_servers.engine.loader import load_model
from stage_servers.engine.native.build import load_library
from tests.gpu import needs_gpu
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench

SHAPE = AttentionShape(num_heads=6, num_kv_heads=2, head_dim=32, scale=32**-0.5)
BLOCK_TOKENS = 4
DEMO = Path(__file__).resolve().parents[3] / "models/demo/checkpoint"
SEGMENTS = (
    Segment(0, 1, 9, (3, 4, 5)),  # blocks behind one another: read in place
    Segment(1, 1, 150, tuple(range(60, 22, -1))),  # blocks out of order
    Segment(2, 1, 1, (10,)),
    Segment(3, 5, 5, (7, 6)),  # a whole prompt
    Segment(8, 140, 150, tuple(range(60, 98))),  # a later chunk
)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param
    torch.set_num_threads(1)


def make_batch(device: torch.device) -> PackedBatch:
    return PackedBatch(SEGMENTS, 3, BLOCK_TOKENS, device)


def plain(pool: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Row by row in float64."""
    out = torch.empty_like(query, dtype=torch.float64)
    group = SHAPE.num_heads // SHAPE.num_kv_heads
    for segment in SEGMENTS:
        slots = [
            segment.blocks[t // BLOCK_TOKENS] * BLOCK_TOKENS + t % BLOCK_TOKENS
            for t in range(segment.num_context)
        ]
        planes = pool.double().flatten(1, 2)[:, slots].view(2, len(slots), SHAPE.num_kv_heads, SHAPE.head_dim)
        for row in range(segment.num_rows):
            seen = segment.first_token + row + 1
            for head in range(SHAPE.num_heads):
                key, value = planes[:, :seen, head // group]
                place = segment.first_row + row
                weights = (key @ query[place, head].double() * SHAPE.scale).softmax(0)
                out[place, head] = weights @ value
    return out


def run(
    backend: AttentionBackend, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(2, 100, BLOCK_TOKENS, 64, generator=generator).to(device, dtype)
    rows = torch.randn(3, 148, 6, 32, generator=generator).to(device, dtype)
    batch = make_batch(device)
    backend.begin(pool, batch)
    backend.write(0, rows[0, :, :2], rows[1, :, :2])
    stored = pool.flatten(1, 2)[:, batch.slots].view(2, -1, 2, 32)
    assert torch.equal(stored, rows[:2, :, :2])
    return backend.attend(0, rows[2]).double().cpu(), plain(pool.cpu(), rows[2].cpu())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", ["sdpa", "native"])
def test_cpu_backends(name: str, dtype: torch.dtype, tolerance: float, threads: int) -> None:
    torch.set_num_threads(threads)
    assert choose(name, torch.device("cpu"), dtype, SHAPE) == name
    ours, right = run(make(name, SHAPE), torch.device("cpu"), dtype)
    assert (ours - right).abs().max() < tolerance


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs triton, and TRITON_INTERPRET=1 to run its kernels without a GPU",
)
def test_triton_by_its_interpreter() -> None:
    ours, right = run(triton_paged.TritonAttention(SHAPE), torch.device("cpu"), torch.float32)
    assert (ours - right).abs().max() < 1e-5


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", [name for name in backend_names() if name not in ("sdpa", "native")])
def test_gpu_backends(name: str, dtype: torch.dtype, tolerance: float) -> None:
    device = torch.device("cuda:0")
    reason = {"triton": triton_paged.refusal, "flash_attn": flash.refusal}[name](device, dtype, SHAPE)
    if reason is not None:
        pytest.skip(reason)
    ours, right = run(make(name, SHAPE), device, dtype)
    assert (ours - right).abs().max() < tolerance


def test_what_a_cpu_gets_by_itself() -> None:
    assert choose("auto", torch.device("cpu"), torch.float32, SHAPE) == "native"
    assert choose("auto", torch.device("cpu"), torch.float16, SHAPE) == "sdpa"


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        ("cpu", torch.bfloat16, "it needs a CUDA device"),
        ("cuda", torch.float32, "it does not compute in torch.float32"),
    ],
)
def test_flash_refuses_with_a_reason(device: str, dtype: torch.dtype, reason: str) -> None:
    assert flash.refusal(torch.device(device), dtype, SHAPE) == reason


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 16, 17, 32, 33, 63, 65, 128])
def test_native_step_in_bfloat16(num_rows: int, threads: int) -> None:
    """As near to float32 as its numbers allow, whether it goes by vectors or by the processor's tiles."""
    torch.set_num_threads(threads)
    fine, coarse = (load_model(DEMO, dtype=dtype) for dtype in ("float32", "bfloat16"))
    segments = [Segment(i, 1, 30 + i % 34, (4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3)) for i in range(num_rows)]
    batch = PackedBatch(segments, num_rows, 16, fine.device)
    generator = torch.Generator().manual_seed(num_rows)
    token_ids = torch.randint(0, 300, (num_rows,), generator=generator)
    positions = torch.randint(0, 200, (3, num_rows), generator=generator)
    pool = torch.randn(fine.kv_planes, 4 * num_rows, 16, fine.kv_token_elements, generator=generator)
    found = []
    with torch.inference_mode():
        for model in (fine, coarse):
            assert model.fast_path is not None
            if num_rows > model.fast_path.max_rows:
                model.fast_path = FastPath(model.family, load_library(), max_rows=num_rows)
            own = pool.to(model.dtype)
            found.append(model.fast_path.run(token_ids, positions, own, batch, list(range(num_rows))))
            model.close()
    right, near = found
    assert (near - right).abs().max() < 0.05 * right.abs().max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("has_media", [False, True])
@pytest.mark.parametrize("name", ["first", "second", "demo"])
def test_bulk_path_equals_the_models_own_code(
    name: str, pairs: dict[str, Pair], dtype: str, has_media: bool, threads: int
) -> None:
    """Prefill rows, with extras behind the first layers where the family has them: same states, same KV."""
    torch.set_num_threads(threads)
    path = DEMO if name == "demo" else pairs[name].path
    ours = load_model(path, dtype=dtype)
    own = load_model(path, dtype=dtype, fast_path=False, attention="sdpa")
    if dtype == "bfloat16" and name != "demo":
        assert ours.bulk_path is None  # heads of 16 values are too short for it
        return
    assert ours.bulk_path is not None
    rows, wanted = 50, [0, 20, 49]
    batch = PackedBatch((Segment(0, 20, 20, (9, 3)), Segment(20, 30, 40, (0, 5, 7))), 0, 16, own.device)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(0, 300, (rows,), generator=generator)
    positions = torch.randint(0, 200, (3, rows), generator=generator)
    values = torch.randn(6, own.embedding_width, generator=generator).to(own.dtype)
    media = MediaRows(torch.tensor([2, 3, 4, 30, 31, 32]), values) if has_media else None
    pools = [torch.zeros(own.kv_planes, 10, 16, own.kv_token_elements, dtype=own.dtype) for _ in range(2)]
    layers: list[int] = []
    with torch.inference_mode():
        attention = own.make_attention()
        attention.begin(pools[0], batch)
        right = own.family.forward_text(token_ids, positions, media, PagedStep(attention))[wanted]
        attention = ours.make_attention()
        attention.begin(pools[1], batch)
        found = ours.bulk_path.run(
            token_ids,
            positions,
            media,
            pool=pools[1],
            batch=batch,
            attention=attention,
            on_layers=layers.extend,
            wanted=wanted,
        )
    for model in (ours, own):
        model.close()
    tolerance = 1e-4 if dtype == "float32" else 0.06
    assert (found - right).abs().max() < tolerance * right.abs().max()
    assert (pools[1] - pools[0]).abs().max() < tolerance * pools[0].abs().max()
    assert layers == list(range(own.num_layers))


@pytest.mark.parametrize("num_rows", [1, 2, 7, 8, 9, 20])
def test_native_step_equals_the_models_own_code(pair: Pair, num_rows: int, threads: int) -> None:
    """Both ways through one step of decodes and a small chunk: the same logits and the same KV."""
    torch.set_num_threads(threads)
    model = pair.model
    assert model.fast_path is not None
    benches = Bench(model, num_blocks=64), Bench(model, num_blocks=64)
    generator = torch.Generator().manual_seed(num_rows)
    pool = torch.randn(benches[0].pool.shape, generator=generator)
    chunk = num_rows // 2
    segments = [Segment(i, 1, 3 + 5 * i, tuple(range(2 * i, 2 * i + 8))) for i in range(num_rows - chunk)]
    if chunk:
        segments.append(Segment(num_rows - chunk, chunk, chunk + 70, tuple(range(63, 55, -1))))
    batch = PackedBatch(segments[-1:] if num_rows == 1 else segments, 0, 16, model.device)
    token_ids = torch.randint(0, 300, (num_rows,), generator=generator)
    positions = torch.randint(0, 200, (3, num_rows), generator=generator)
    own_pool, native_pool = pool.clone(), pool.clone()
    with torch.inference_mode():
        native = model.fast_path.run(token_ids, positions, native_pool, batch, list(range(num_rows)))
        attention = pair.plain_model.make_attention()
        attention.begin(own_pool, batch)
        hidden = pair.plain_model.family.forward_text(token_ids, positions, None, PagedStep(attention))
        own = pair.plain_model.family.logits(hidden)
    assert (native - own).abs().max() < 1e-4
    assert (native_pool - own_pool).abs().max() < 1e-4
    assert not torch.equal(own_pool, pool)
