"""The Qwen-VL encoders, run so that others may have the device between two layers.

Every module is transformers' own and is called with what its own forward would give it, so embeddings are
the same bit for bit. `grids` stay in host memory, and so does where attention ends: attention over parts
reads that on the host, in every layer.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch

from stage_servers.engine.device import moved_to

Stops = Generator[None, None, torch.Tensor]


def windowed(vision: Any, pixels: torch.Tensor, grids: torch.Tensor) -> Stops:
    """Most layers attend within windows, for which patches are reordered: [tokens, hidden]."""
    from transformers.vision_utils import get_vision_window_index

    order, window_ends = get_vision_window_index(
        grids,
        spatial_merge_size=vision.spatial_merge_size,
        window_size=vision.window_size,
        patch_size=vision.patch_size,
        kwargs={},
    )
    back = moved_to(pixels.device, torch.argsort(order))
    order = moved_to(pixels.device, order)
    hidden = vision.patch_embed(pixels)
    num_patches = len(hidden)
    hidden = vision.permute_input_for_window_attn(hidden, order, seq_len=num_patches)
    rotary = tuple(
        vision.permute_input_for_window_attn(part, order, seq_len=num_patches)
        for part in vision.rotary_pos_emb(hidden, _positions(vision, grids, hidden.device))
    )
    whole, within_windows = _parts(vision, grids), _bounds(vision, window_ends)
    for index, layer in enumerate(vision.blocks):
        parts = whole if index in vision.fullatt_block_indexes else within_windows
        hidden = layer(hidden, position_embeddings=rotary, **parts)
        yield
    merged: torch.Tensor = vision.merger(hidden)
    return merged[back]


def with_extras(vision: Any, pixels: torch.Tensor, grids: torch.Tensor) -> Stops:
    """Some layers give an extra tensor each: [tokens, hidden * (1 + extras)]."""
    hidden = vision.patch_embed(pixels)
    hidden = hidden + _learned_positions(vision, grids, hidden.device).to(hidden.dtype)
    rotary = vision.rotary_pos_emb(hidden, _positions(vision, grids, hidden.device))
    hidden = hidden.reshape(len(hidden), -1)
    parts, extras = _parts(vision, grids), []
    for index, layer in enumerate(vision.blocks):
        hidden = layer(hidden, position_embeddings=rotary, **parts)
        if index in vision.deepstack_visual_indexes:
            merger = vision.deepstack_merger_list[vision.deepstack_visual_indexes.index(index)]
            extras.append(merger(hidden))
        yield
    return torch.cat([vision.merger(hidden), *extras], dim=1)


def _positions(vision: Any, grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    from transformers.vision_utils import get_vision_position_ids

    return moved_to(device, get_vision_position_ids(grids, vision.spatial_merge_size, kwargs={}))


def _parts(vision: Any, grids: torch.Tensor) -> dict[str, Any]:
    """Where the rows of each picture end: attention stays within."""
    from transformers.vision_utils import get_vision_attention_seqlens

    ends, longest = get_vision_attention_seqlens(grids, vision.config, kwargs={})
    return {"cu_seqlens": ends, "max_seqlen": longest}


def _bounds(vision: Any, ends: torch.Tensor) -> dict[str, Any]:
    from transformers.utils.generic import get_max_seqlen

    longest = get_max_seqlen(ends, vision.config, kwargs={}, kwarg_name="max_window_seqlen")
    return {"cu_seqlens": ends, "max_seqlen": longest}


def _learned_positions(vision: Any, grids: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[patches, hidden], between the points of the square grid that was learned."""
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    points, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=vision.num_grid_per_side,
        mode=vision.interpolation_mode,
        align_corners=vision.interpolation_align_corners,
        spatial_merge_size=vision.config.spatial_merge_size,
        kwargs={},
    )
    embedded: torch.Tensor = (
        vision.pos_embed(moved_to(device, points)) * moved_to(device, weights)[:, :, None]
    )
    return embedded.sum(1)
