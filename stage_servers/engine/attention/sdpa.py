"""Attention by torch's scaled_dot_product_attention, one call per sequence; runs everywhere."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from stage_servers.engine.attention.backend import AttentionShape, write_rows
from stage_servers.engine.attention.batch import PackedBatch, Segment

_ROWS_AT_A_TIME = 128


class SdpaAttention:
    """Reads a sequence's blocks in place where they lie behind one another, else gathers them."""

    name = "sdpa"

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        self._pool = torch.empty(0)
        self._batch: PackedBatch | None = None
        self._sources: list[tuple[slice | torch.Tensor, torch.Tensor | None]] = []

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        self._pool, self._batch = pool, batch
        self._sources = [(self._source(segment), _mask(segment, pool.device)) for segment in batch.segments]

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        assert self._batch is not None
        write_rows(self._pool, layer, self._batch.slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        out = torch.empty_like(query)
        for segment, (source, mask) in zip(self._batch.segments, self._sources, strict=True):
            rows = slice(segment.first_row, segment.first_row + segment.num_rows)
            key = self._context(2 * layer, source, segment.num_context)
            value = self._context(2 * layer + 1, source, segment.num_context)
            self._attend_segment(query[rows], key, value, mask, out[rows])
        return out

    def _attend_segment(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        out: torch.Tensor,
    ) -> None:
        """Some rows at a time, each time only with the context that the last of them sees."""
        num_rows, num_context = len(query), key.shape[2]
        for first in range(0, num_rows, _ROWS_AT_A_TIME):
            end = min(first + _ROWS_AT_A_TIME, num_rows)
            seen = num_context - num_rows + end
            mixed = scaled_dot_product_attention(
                query[None, first:end].transpose(1, 2),
                key[:, :, :seen],
                value[:, :, :seen],
                attn_mask=None if mask is None else mask[first:end, :seen],
                scale=self._shape.scale,
                enable_gqa=self._shape.num_heads != self._shape.num_kv_heads,
            )
            out[first:end] = mixed[0].transpose(0, 1)

    def _source(self, segment: Segment) -> slice | torch.Tensor:
        assert self._batch is not None
        used = segment.blocks[: -(-segment.num_context // self._batch.block_tokens)]
        if used == tuple(range(used[0], used[0] + len(used))):
            return slice(used[0], used[0] + len(used))
        return torch.tensor(used, device=self._pool.device)

    def _context(self, plane: int, source: slice | torch.Tensor, num_context: int) -> torch.Tensor:
        """[1, kv_heads, num_context, head_dim] of one plane."""
        rows = self._pool[plane][source].flatten(0, 1)[:num_context]
        return rows.view(1, num_context, self._shape.num_kv_heads, self._shape.head_dim).transpose(1, 2)


def _mask(segment: Segment, device: torch.device) -> torch.Tensor | None:
    """Which context each row may see; None for a single row, which sees all of it."""
    if segment.num_rows == 1:
        return None
    tokens = torch.arange(segment.num_context, device=device)
    return tokens[None, :] <= tokens[segment.first_token :, None]
