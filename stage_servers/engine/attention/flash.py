"""Attention by the flash-attn package, whichever of its generations is importable.

The third generation reads the pool in place. The second wants blocks of a multiple of 256
tokens for that; with smaller ones the sequences' blocks are gathered first, which is why it
runs only when asked for by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

from stage_servers.engine.attention.backend import AttentionShape, write_rows
from stage_servers.engine.attention.batch import PackedBatch

_PAGE_TOKENS = 256  # what the second generation wants blocks to be a multiple of


def refusal(device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str | None:  # noqa: ARG001
    """Why this backend cannot run there, or None."""
    if device.type != "cuda":
        return "it needs a CUDA device"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it does not compute in {dtype}"
    if generation() is None:
        return "neither flash_attn_interface nor flash_attn is installed"
    return None


def generation() -> int | None:
    """3 or 2, the newest that is installed."""
    for name, number in (("flash_attn_interface", 3), ("flash_attn", 2)):
        if importlib.util.find_spec(name) is not None:
            return number
    return None


class FlashAttention:
    name = "flash_attn"

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        self._generation = generation()
        name = "flash_attn_interface" if self._generation == 3 else "flash_attn"
        self._library: Any = importlib.import_module(name)
        self._pool = torch.empty(0)
        self._batch: PackedBatch | None = None
        self._longest_rows = 0
        self._longest_context = 0
        self._gathered: torch.Tensor | None = None

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        self._pool, self._batch = pool, batch
        self._longest_rows = max(segment.num_rows for segment in batch.segments)
        self._longest_context = max(segment.num_context for segment in batch.segments)
        must_gather = self._generation == 2 and batch.block_tokens % _PAGE_TOKENS
        self._gathered = _context_slots(batch) if must_gather else None

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        assert self._batch is not None
        write_rows(self._pool, layer, self._batch.slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        key, value = self._planes(layer)
        if self._generation == 3:
            out = self._library.flash_attn_with_kvcache(
                query,
                key,
                value,
                cache_seqlens=self._batch.context_lengths,
                page_table=self._batch.block_table,
                cu_seqlens_q=self._batch.row_bounds,
                max_seqlen_q=self._longest_rows,
                softmax_scale=self._shape.scale,
                causal=True,
            )
        else:
            out = self._second_generation(query, key, value)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def _second_generation(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Any:
        assert self._batch is not None
        table: torch.Tensor | None = self._batch.block_table
        if self._gathered is not None:
            key, value = (plane.flatten(0, 1)[self._gathered] for plane in (key, value))
            table = None
        bounds = torch.nn.functional.pad(self._batch.context_lengths.cumsum(0, dtype=torch.int32), (1, 0))
        return self._library.flash_attn_varlen_func(
            query,
            key,
            value,
            cu_seqlens_q=self._batch.row_bounds,
            cu_seqlens_k=bounds,
            max_seqlen_q=self._longest_rows,
            max_seqlen_k=self._longest_context,
            softmax_scale=self._shape.scale,
            causal=True,
            block_table=table,
        )

    def _planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer as [blocks, block_tokens, kv_heads, head_dim]."""
        shape = (*self._pool.shape[1:3], self._shape.num_kv_heads, self._shape.head_dim)
        return self._pool[2 * layer].view(shape), self._pool[2 * layer + 1].view(shape)


def _context_slots(batch: PackedBatch) -> torch.Tensor:
    """Token slots of all sequences' contexts behind one another."""
    size = batch.block_tokens
    slots = [
        segment.blocks[token // size] * size + token % size
        for segment in batch.segments
        for token in range(segment.num_context)
    ]
    return torch.tensor(slots, dtype=torch.int64, device=batch.device)
