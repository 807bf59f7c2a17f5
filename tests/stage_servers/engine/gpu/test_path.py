"""The text layers by our kernels: the states and the KV of the model's own code."""

from __future__ import annotations

import copy

import pytest
import torch

from stage_servers.engine.attention.backend import PagedStep
from stage_servers.engine.attention.batch import PackedBatch, Segment
from stage_servers.engine.attention.sdpa import SdpaAttention
from stage_servers.engine.attention.triton_paged import splits
from stage_servers.engine.families.adapter import FamilyAdapter, MediaRows
from stage_servers.engine.gpu.path import GpuPath, refusal
from tests.gpu import DEVICE, needs_kernels
from tests.stage_servers.engine.conftest import Pair

SEGMENTS = (Segment(0, 1, 37, (4, 6, 8)), Segment(1, 20, 20, (9, 3)), Segment(21, 30, 40, (0, 5, 7)))
NUM_ROWS = 51
BLOCK_TOKENS = 16
WANTED = [0, 20, 50]


def copied(pair: Pair, dtype: torch.dtype) -> FamilyAdapter:
    """The family's model on the device, which can be changed."""
    family = copy.deepcopy(pair.plain_model.family)
    family.model.to(DEVICE, dtype)
    return family


class Step:
    """One packed step of a decode and two chunks, with the same values in every dtype."""

    def __init__(self, pair: Pair, has_media: bool) -> None:
        model, generator = pair.plain_model, torch.Generator().manual_seed(1)
        self._pair = pair
        self.token_ids = torch.randint(0, 300, (NUM_ROWS,), generator=generator).to(DEVICE)
        self.positions = torch.randint(0, 200, (3, NUM_ROWS), generator=generator).to(DEVICE)
        self._values = torch.randn(6, model.embedding_width, generator=generator)
        self._has_media = has_media
        shape = (model.kv_planes, 10, BLOCK_TOKENS, model.kv_token_elements)
        self._pool = torch.randn(shape, generator=generator)
        self.batch = PackedBatch(SEGMENTS, 1, BLOCK_TOKENS, DEVICE)
        self.layers: list[int] = []

    def run(
        self, dtype: torch.dtype, *, is_ours: bool, is_joined: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden states of the wanted rows, pool) by our kernels or by the model's own code."""
        family = copied(self._pair, dtype)
        media = None
        if self._has_media:
            rows = torch.tensor([2, 3, 4, 30, 31, 32], device=DEVICE)
            media = MediaRows(rows, self._values.to(DEVICE, dtype))
        pool = self._pool.to(DEVICE, dtype, copy=True)
        path = GpuPath(family) if is_ours or is_joined else None
        with torch.inference_mode():
            attention = SdpaAttention(family.attention_shape)
            attention.begin(pool, self.batch)
            if path is None or not is_ours:
                hidden = family.forward_text(self.token_ids, self.positions, media, PagedStep(attention))
                return hidden[WANTED].float().cpu(), pool.float().cpu()
            found = path.run(
                self.token_ids,
                self.positions,
                media,
                pool=pool,
                slots=self.batch.slots,
                attention=attention,
                on_layers=self.layers.extend,
                wanted=torch.tensor(WANTED, device=DEVICE),
            )
        return found.float().cpu(), pool.float().cpu()


@pytest.mark.gpu
@needs_kernels
@pytest.mark.parametrize("has_media", [False, True])
def test_path_equals_the_models_own_code(pair: Pair, has_media: bool) -> None:
    step = Step(pair, has_media)
    right, right_pool = step.run(torch.float32, is_ours=False)
    found, pool = step.run(torch.float32, is_ours=True)
    assert (found - right).abs().max() < 1e-4 * right.abs().max()
    assert (pool - right_pool).abs().max() < 1e-4 * right_pool.abs().max()
    assert step.layers == list(range(pair.model.num_layers))
    # Products with joined weights are the model's own, too.
    assert torch.equal(step.run(torch.float32, is_ours=False, is_joined=True)[0], right)


@pytest.mark.gpu
@needs_kernels
@pytest.mark.parametrize("has_media", [False, True])
def test_path_in_bfloat16_is_as_near_to_float32_as_the_models_own_code(pair: Pair, has_media: bool) -> None:
    step = Step(pair, has_media)
    fine = step.run(torch.float32, is_ours=False)
    own = step.run(torch.bfloat16, is_ours=False)
    found = step.run(torch.bfloat16, is_ours=True)
    for right, theirs, ours in zip(fine, own, found, strict=True):
        assert (ours - right).abs().mean() < 1.5 * (theirs - right).abs().mean()


def test_few_programs_share_the_tokens_of_their_sequences() -> None:
    assert [splits(programs) for programs in (1, 4, 8, 33, 66, 132, 264, 10_000)] == [
        32,
        32,
        32,
        8,
        4,
        2,
        1,
        1,
    ]


def test_families_that_cannot_go_this_way(pair: Pair) -> None:
    assert refusal(pair.plain_model.family) is None
    family = copy.deepcopy(pair.plain_model.family)
    family.text_model.layers[0].register_parameter("gate_of_ours", torch.nn.Parameter(torch.zeros(1)))
    assert refusal(family) == "the kernels know no gate_of_ours"
    family = copy.deepcopy(pair.plain_model.family)
    family.text_config.hidden_act = "gelu"
    assert refusal(family) == "there is no kernel for the activation gelu"
