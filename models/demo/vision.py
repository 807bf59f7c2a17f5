"""The vision encoder over many pictures of one grid at once.

transformers loops over pictures and windows; pictures of one grid need no loop, which is what
makes training on a CPU quick. The weights and the results are those of the model's own encoder.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from models.demo.pictures import Grid


class BatchedVision:
    """Encodes normalised one-frame patches through the given encoder's weights."""

    def __init__(self, visual: Qwen2_5_VisionTransformerPretrainedModel) -> None:
        self._visual: Any = visual
        self._plans: dict[Grid, tuple[Any, ...]] = {}

    def encode(self, patches: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Patches (pictures, rows * columns, 3 * 14 * 14) to embeddings (pictures, tokens, hidden).

        The grid must divide into whole windows.
        """
        order, back, rotation, num_windows = self._plan(grid, patches.device)
        hidden = self._embed(patches)
        pictures, num_patches, width = hidden.shape
        hidden = hidden.view(pictures, num_patches // 4, 4, width)[:, order]
        hidden = hidden.reshape(pictures, num_patches, width)
        for index, block in enumerate(self._visual.blocks):
            whole = index in self._visual.fullatt_block_indexes
            windows = 1 if whole else num_windows
            hidden = hidden + self._attend(block.attn, block.norm1(hidden), rotation, windows)
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged: torch.Tensor = self._visual.merger(hidden)
        return merged.view(pictures, num_patches // 4, -1)[:, back]

    def _embed(self, patches: torch.Tensor) -> torch.Tensor:
        # Both frames of a still picture are equal: their weights add up.
        weight = self._visual.patch_embed.proj.weight.sum(2).flatten(1)
        return functional.linear(patches, weight)

    def _attend(
        self, attention: Any, hidden: torch.Tensor, rotation: tuple[Any, Any], windows: int
    ) -> torch.Tensor:
        pictures, num_patches, width = hidden.shape
        heads = attention.num_heads
        qkv = attention.qkv(hidden).view(pictures, num_patches, 3, heads, width // heads)
        query, key, value = qkv.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, *rotation)
        shape = (pictures * windows, num_patches // windows, heads, width // heads)
        # Attention over few patches is several times slower in bfloat16 on a CPU.
        with torch.autocast(hidden.device.type, enabled=False):
            query, key, value = (part.float().reshape(shape).transpose(1, 2) for part in (query, key, value))
            mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(pictures, num_patches, width)
        projected: torch.Tensor = attention.proj(mixed)
        return projected

    def _plan(self, grid: Grid, device: torch.device) -> tuple[Any, ...]:
        """Window order of the merged tokens, the way back, rotation, number of windows."""
        if grid not in self._plans:
            visual = self._visual
            grid_thw = torch.tensor([[1, *grid]])
            order, bounds = get_vision_window_index(
                grid_thw, visual.spatial_merge_size, visual.window_size, visual.patch_size
            )
            if len(set(bounds.diff().tolist())) != 1:
                raise ValueError(f"grid {grid} does not divide into whole windows")
            positions = get_vision_position_ids(grid_thw, visual.spatial_merge_size)
            rotation = visual.rotary_pos_emb(positions.float(), positions)
            rotation = tuple(
                part.view(-1, 4, part.shape[-1])[order].flatten(0, 1).to(device) for part in rotation
            )
            back = torch.argsort(order)
            self._plans[grid] = (order.to(device), back.to(device), rotation, len(bounds) - 1)
        return self._plans[grid]
