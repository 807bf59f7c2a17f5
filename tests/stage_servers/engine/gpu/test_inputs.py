"""What fills captured steps up changes nothing: the states and the KV of the same rows by themselves."""

from __future__ import annotations

import copy

import pytest
import torch

from stage_servers.engine.attention.batch import PackedBatch, Segment
from stage_servers.engine.attention.triton_paged import TritonAttention
from stage_servers.engine.families.adapter import MediaRows
from stage_servers.engine.gpu.graphs import CHUNK_ROWS, DECODES, compute, needed_sizes, size_of
from stage_servers.engine.gpu.inputs import PackedStep, StepInputs, StepSize
from stage_servers.engine.gpu.path import GpuPath
from tests.gpu import DEVICE, needs_kernels
from tests.stage_servers.engine.conftest import Pair

BLOCK_TOKENS = 16
DECODING = [Segment(0, 1, 150, tuple(range(1, 11))), Segment(1, 1, 3, (12,)), Segment(2, 1, 1, (11,))]
CHUNKS = [Segment(3, 20, 20, (13, 14)), Segment(23, 1, 18, (15, 16)), Segment(24, 33, 40, (17, 18, 19))]


@pytest.mark.gpu
@needs_kernels
@pytest.mark.parametrize(
    ("segments", "num_decodes", "size"),
    [
        (DECODING, 3, StepSize(4, 0)),
        (DECODING + CHUNKS, 3, StepSize(16, 64)),
        (CHUNKS, 0, StepSize(0, 64)),
    ],
)
def test_rows_that_fill_up_leave_the_others_and_the_pool_alone(
    pair: Pair, segments: list[Segment], num_decodes: int, size: StepSize
) -> None:
    model, family = pair.plain_model, copy.deepcopy(pair.plain_model.family)
    family.model.to(DEVICE, torch.float32)
    first_row = segments[0].first_row
    segments = [Segment(s.first_row - first_row, s.num_rows, s.num_context, s.blocks) for s in segments]
    batch = PackedBatch(segments, num_decodes, BLOCK_TOKENS, DEVICE)
    generator = torch.Generator().manual_seed(2)
    shape = (model.kv_planes, 20, BLOCK_TOKENS, model.kv_token_elements)
    pool = torch.randn(shape, generator=generator)
    token_ids = torch.randint(0, 300, (batch.num_rows,), generator=generator)
    positions = torch.randint(0, 200, (3, batch.num_rows), generator=generator)
    media = None
    if size.chunk_rows:
        rows = torch.tensor([num_decodes + 3, num_decodes + 4, batch.num_rows - 1], device=DEVICE)
        values = torch.randn(3, model.embedding_width, generator=generator)
        media = MediaRows(rows, values.to(DEVICE))
    with torch.inference_mode():
        path = GpuPath(family)
        plain, filled = pool.to(DEVICE, copy=True), pool.to(DEVICE, copy=True)
        attention = TritonAttention(family.attention_shape)
        attention.begin(plain, batch)
        right = path.run(
            token_ids.to(DEVICE),
            positions.to(DEVICE),
            media,
            pool=plain,
            slots=batch.slots,
            attention=attention,
            on_layers=None,
            wanted=None,
        )
        assert size_of(num_decodes, batch.num_rows - num_decodes) == size
        inputs = StepInputs(family, DEVICE, width=12, pair_rows=attention.chunk_rows(pool.dtype))
        attention.begin_rows(filled, inputs.rows(size), BLOCK_TOKENS)
        inputs.fill(size, PackedStep(batch, token_ids, positions, media))
        *_, hidden = compute(path, inputs, size, filled, attention)
    assert hidden is not None
    found = torch.cat([hidden[:num_decodes], hidden[size.decodes :]])[: batch.num_rows]
    assert torch.allclose(found, right, atol=1e-5)
    assert torch.allclose(filled, plain, atol=1e-5)
    changed = (filled.cpu() != pool).any(dim=(0, 3)).nonzero().tolist()
    assert changed == sorted([*divmod(slot, BLOCK_TOKENS)] for slot in batch.slots.tolist())


def test_steps_take_the_least_size_that_has_room() -> None:
    assert size_of(3, 0) == StepSize(4, 0)
    assert size_of(256, 0) == StepSize(256, 0)
    assert size_of(257, 0) is None
    assert size_of(0, 1) == StepSize(0, 32)
    assert size_of(1, 33) == StepSize(16, 64)
    assert size_of(16, 496) == StepSize(16, 512)
    assert size_of(0, 513) is None
    assert size_of(200, 300) is None  # more surplus than it is worth


@pytest.mark.parametrize(("most_decodes", "most_rows"), [(1, 40), (20, 64), (64, 512), (256, 2048)])
def test_what_is_prepared_is_all_that_steps_take(most_decodes: int, most_rows: int) -> None:
    needed = {
        size_of(decodes, rows)
        for decodes in range(min(most_decodes, max(DECODES)) + 1)
        for rows in range(min(most_rows - decodes, max(CHUNK_ROWS)) + 1)
        if decodes + rows
    }
    assert set(needed_sizes(most_decodes, most_rows)) == needed - {None}
