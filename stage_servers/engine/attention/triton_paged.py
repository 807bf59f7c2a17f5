"""Paged attention on CUDA by a Triton kernel (Triton comes with torch): decodes and prefill chunks alike.

One program attends the query heads of one KV head, for some rows of one sequence, to that
sequence's blocks in place, with a running softmax. float32 products are exact (no TF32), and made without
matrix units, each thread's share written out by the compiler: hence smaller tiles, or it takes minutes and
the registers do not suffice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stage_servers.engine.attention.backend import AttentionShape, write_rows
from stage_servers.engine.attention.batch import PackedBatch, Segment
from stage_servers.engine.device import tensor_on

_PREFILL_ROWS = 16  # of a sequence in one program, at most
_LEAST_QUERIES = 16  # of a matrix product in Triton


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program works on at a time."""

    rows: int  # of a sequence
    queries: int  # room for all their heads, a power of two
    keys: int
    warps: int
    stages: int  # of loads that are on their way


def tile(dtype: torch.dtype, group: int, most_rows: int) -> Tile:
    """For `group` query heads per KV head; fits registers and shared memory for heads of up to 128 values."""
    is_wide = dtype.itemsize > 2
    rows = max(1, min(most_rows, (32 if is_wide else 128) // group))
    queries = max(_LEAST_QUERIES, _power_of_two(rows * group))
    if is_wide:
        return Tile(rows, queries, keys=32, warps=8 if queries > _LEAST_QUERIES else 4, stages=2)
    return Tile(rows, queries, keys=64, warps=8 if queries > 64 else 4, stages=3)


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
        self._work: list[tuple[torch.Tensor, Tile]] = []

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        self._pool, self._batch = pool, batch
        batch.make_tensors()
        places = list(enumerate(batch.segments))
        decodes = [(place, segment) for place, segment in places if segment.num_rows == 1]
        prefills = [(place, segment) for place, segment in places if segment.num_rows > 1]
        group = self._shape.num_heads // self._shape.num_kv_heads
        parts = [
            (part, tile(pool.dtype, group, rows)) for part, rows in ((decodes, 1), (prefills, _PREFILL_ROWS))
        ]
        self._work = [(_work(part, each.rows, pool.device), each) for part, each in parts if part]

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        assert self._batch is not None
        write_rows(self._pool, layer, self._batch.slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        assert self._batch is not None
        query = query.contiguous()
        out = torch.empty_like(query)
        shape, table = self._shape, self._batch.block_table
        group = shape.num_heads // shape.num_kv_heads
        for work, each in self._work:
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
                PADDED_DIM=max(_LEAST_QUERIES, _power_of_two(shape.head_dim)),
                ROWS=each.rows,
                QUERIES=each.queries,
                KEYS=each.keys,
                BLOCK_TOKENS=self._batch.block_tokens,
                num_warps=each.warps,
                num_stages=each.stages,
            )
        return out


def _work(places: Sequence[tuple[int, Segment]], rows: int, device: torch.device) -> torch.Tensor:
    """[programs, 2] int32: a segment and the first of its rows that the program takes."""
    pairs = [
        (place, segment.first_row + first)
        for place, segment in places
        for first in range(0, segment.num_rows, rows)
    ]
    return tensor_on(device, pairs, torch.int32)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
