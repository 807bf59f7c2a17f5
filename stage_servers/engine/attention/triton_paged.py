"""Paged attention on CUDA by a Triton kernel (Triton comes with torch): decodes and prefill chunks alike.

One program attends the query heads of one KV head, for some rows of one sequence, to that
sequence's blocks in place, with a running softmax. float32 products are exact (no TF32).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from stage_servers.engine.attention.backend import AttentionShape, write_rows
from stage_servers.engine.attention.batch import PackedBatch, Segment

_PREFILL_ROWS = 16  # of a sequence in one program
_KEYS = 64  # attended to at a time


def refusal(device: torch.device, dtype: torch.dtype, shape: AttentionShape) -> str | None:  # noqa: ARG001
    """Why this backend cannot run there, or None."""
    if device.type != "cuda":
        return "it needs a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


class TritonAttention:
    name = "triton"

    def __init__(self, shape: AttentionShape) -> None:
        from stage_servers.engine.attention.triton_kernel import paged_attention_kernel

        self._kernel: Any = paged_attention_kernel
        self._shape = shape
        self._pool = torch.empty(0)
        self._batch: PackedBatch | None = None
        self._work: list[tuple[torch.Tensor, int]] = []

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        self._pool, self._batch = pool, batch
        places = list(enumerate(batch.segments))
        decodes = [(place, segment) for place, segment in places if segment.num_rows == 1]
        prefills = [(place, segment) for place, segment in places if segment.num_rows > 1]
        self._work = [
            (_work(part, rows, pool.device), rows)
            for part, rows in ((decodes, 1), (prefills, _PREFILL_ROWS))
            if part
        ]

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        assert self._batch is not None
        write_rows(self._pool, layer, self._batch.slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        query = query.contiguous()
        out = torch.empty_like(query)
        shape, table = self._shape, self._batch.block_table
        group = shape.num_heads // shape.num_kv_heads
        for work, rows in self._work:
            self._kernel[(len(work), shape.num_kv_heads)](
                query,
                self._pool[2 * layer],
                self._pool[2 * layer + 1],
                out,
                work,
                self._batch.row_bounds,
                self._batch.context_lengths,
                table,
                table.shape[1],
                shape.scale,
                NUM_HEADS=shape.num_heads,
                NUM_KV_HEADS=shape.num_kv_heads,
                GROUP=group,
                HEAD_DIM=shape.head_dim,
                PADDED_DIM=max(16, _power_of_two(shape.head_dim)),
                ROWS=rows,
                QUERIES=max(16, _power_of_two(rows * group)),
                KEYS=_KEYS,
                BLOCK_TOKENS=self._batch.block_tokens,
            )
        return out


def _work(places: Sequence[tuple[int, Segment]], rows: int, device: torch.device) -> torch.Tensor:
    """[programs, 2] int32: a segment and the first of its rows that the program takes."""
    pairs = [
        (place, segment.first_row + first)
        for place, segment in places
        for first in range(0, segment.num_rows, rows)
    ]
    return torch.tensor(pairs, dtype=torch.int32, device=device)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
