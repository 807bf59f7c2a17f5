"""The encoder's stand-ins give what the modules they stand in for give."""

from __future__ import annotations

import copy

import pytest
import torch

from stage_servers.engine.families.adapter import PixelInput
from stage_servers.engine.fused import fuse_patches
from stage_servers.engine.gpu.encoder import LastForward, Windows, fuse_encoder
from tests.gpu import DEVICE, needs_kernels
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.test_encode_in_parts import pixels, whole


@pytest.mark.parametrize(
    ("ends", "batches", "order"),
    [
        ([0, 4, 8, 12], ((3, 4),), None),
        ([0, 4, 6], ((1, 4), (1, 2)), None),
        ([0, 2, 5, 7], ((2, 2), (1, 3)), [0, 1, 5, 6, 2, 3, 4]),
        ([0, 3, 3, 6], ((2, 3),), None),  # an empty window is none
    ],
)
def test_windows_of_equal_length_are_one_batch(
    ends: list[int], batches: tuple[tuple[int, int], ...], order: list[int] | None
) -> None:
    found = Windows.of(torch.tensor(ends), torch.device("cpu"))
    assert found.batches == batches
    if order is None:
        assert found.order is found.back is None
        return
    assert found.order is not None
    assert found.back is not None
    assert found.order.tolist() == order
    assert found.order[found.back].tolist() == list(range(len(order)))


def test_all_layers_share_the_windows_of_a_forward() -> None:
    last, cpu = LastForward(), torch.device("cpu")
    whole, within, others = (torch.tensor(ends) for ends in ([0, 8], [0, 4, 8], [0, 2, 8]))
    first = last.windows(whole, cpu), last.windows(within, cpu)
    assert (last.windows(whole, cpu), last.windows(within, cpu)) == first
    assert last.windows(others, cpu).batches == ((1, 2), (1, 6))
    assert last.windows(within, cpu) is first[1]
    assert last.windows(whole, cpu) is not first[0]  # forgotten


def check(pair: Pair, inputs: list[PixelInput], kernels: object, device: torch.device) -> None:
    model = copy.copy(pair.plain_model)
    model.family = copy.deepcopy(pair.plain_model.family)
    right = whole(pair, inputs)
    model.device = device
    fuse_patches(model.family.model)  # else a GPU rounds its convolution to TF32
    vision = model.family.vision_model.to(device)
    num_norms = sum(type(module).__name__.endswith("RMSNorm") for module in vision.modules())
    num_gated = sum(hasattr(module, "gate_proj") for module in vision.modules()) if kernels else 0
    assert fuse_encoder(vision, kernels) == len(vision.blocks) + num_norms + num_gated
    assert torch.allclose(torch.cat(model.encode(inputs)).cpu(), right, atol=1e-4)


def test_embeddings_are_those_of_the_originals(pair: Pair) -> None:
    check(pair, pixels(pair), None, torch.device("cpu"))


@pytest.mark.gpu
@needs_kernels
def test_embeddings_with_our_kernels(pair: Pair) -> None:
    from stage_servers.engine.gpu import kernels

    check(pair, pixels(pair), kernels, DEVICE)
