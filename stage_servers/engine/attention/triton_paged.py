"""Paged attention on CUDA by a Triton kernel (Triton comes with torch): decodes and prefill chunks alike.

One program attends the query heads of one KV head, for some rows of one sequence, to that
sequence's blocks in place, with a running softmax; where decodes are few, several programs share a
sequence's tokens. float32 products are exact (no TF32), and made without
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
from stage_servers.engine.attention.batch import PackedBatch, Segment, StepRows
from stage_servers.engine.device import tensor_on

_PREFILL_ROWS = 16  # of a sequence in one program, at most
_LEAST_QUERIES = 16  # of a matrix product in Triton
_FULL_PROGRAMS = 264  # two for each of the 132 multiprocessors of an H100
_MOST_SPLITS = 32


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
    queries = max(_LEAST_QUERIES, power_of_two(rows * group))
    if is_wide:
        return Tile(rows, queries, keys=32, warps=8 if queries > _LEAST_QUERIES else 4, stages=2)
    return Tile(rows, queries, keys=64, warps=8 if queries > 64 else 4, stages=3)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """Programs of one kind: [programs, 2] int32 segments and the first of their rows that each takes."""

    pairs: torch.Tensor
    tile: Tile
    num_splits: int


def splits(num_programs: int) -> int:
    """Among how many programs each one's tokens are shared, a power of two, so that they fill a card."""
    return max(1, min(_MOST_SPLITS, power_of_two(_FULL_PROGRAMS // num_programs + 1) // 2))


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
        from stage_servers.engine.attention import triton_kernel

        self._kernels: Any = triton_kernel
        self._shape = shape
        self._pool = torch.empty(0)
        self._block_tokens = 0
        self._slots = torch.empty(0)
        self._row_bounds = torch.empty(0)
        self._context_lengths = torch.empty(0)
        self._block_table = torch.empty(0)
        self._work: list[_Work] = []
        self._has_surplus = False  # rows that no program attends

    def begin(self, pool: torch.Tensor, batch: PackedBatch) -> None:
        batch.make_tensors()
        self._pool, self._block_tokens = pool, batch.block_tokens
        self._slots, self._row_bounds = batch.slots, batch.row_bounds
        self._context_lengths, self._block_table = batch.context_lengths, batch.block_table
        places = list(enumerate(batch.segments))
        decodes = [(place, segment) for place, segment in places if segment.num_rows == 1]
        prefills = [(place, segment) for place, segment in places if segment.num_rows > 1]
        group = self._shape.num_heads // self._shape.num_kv_heads
        self._work, self._has_surplus = [], False
        if decodes:
            each = tile(pool.dtype, group, 1)
            most = max(segment.num_context for _, segment in decodes)
            num_splits = min(
                splits(len(decodes) * self._shape.num_kv_heads), power_of_two(-(-most // each.keys))
            )
            self._work.append(_Work(_pairs(decodes, each.rows, pool.device), each, num_splits))
        if prefills:
            each = tile(pool.dtype, group, _PREFILL_ROWS)
            self._work.append(_Work(_pairs(prefills, each.rows, pool.device), each, 1))

    def begin_rows(self, pool: torch.Tensor, rows: StepRows, block_tokens: int) -> None:
        """As `begin`, for rows whose tensors are filled later: what is captured goes for all contexts."""
        self._pool, self._block_tokens = pool, block_tokens
        self._slots, self._row_bounds = rows.slots, rows.row_bounds
        self._context_lengths, self._block_table = rows.context_lengths, rows.block_table
        group, count = self._shape.num_heads // self._shape.num_kv_heads, rows.num_decodes
        self._work, self._has_surplus = [], len(rows.chunk_pairs) > 0
        if count:
            numbers = torch.arange(count, dtype=torch.int32, device=pool.device)
            pairs = numbers[:, None].expand(count, 2).contiguous()
            self._work.append(
                _Work(pairs, tile(pool.dtype, group, 1), splits(count * self._shape.num_kv_heads))
            )
        if len(rows.chunk_pairs):
            self._work.append(_Work(rows.chunk_pairs, tile(pool.dtype, group, _PREFILL_ROWS), 1))

    def chunk_rows(self, dtype: torch.dtype) -> int:
        """How many of a chunk's rows one program attends."""
        return tile(dtype, self._shape.num_heads // self._shape.num_kv_heads, _PREFILL_ROWS).rows

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        write_rows(self._pool, layer, self._slots, key, value)

    def attend(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        query = query.contiguous()
        # What happens to lie in memory may be no number, and spreads over its row.
        out = torch.zeros_like(query) if self._has_surplus else torch.empty_like(query)
        for work in self._work:
            self._attend(layer, query, out, work)
        return out

    def _attend(self, layer: int, query: torch.Tensor, out: torch.Tensor, work: _Work) -> None:
        shape, each = self._shape, work.tile
        padded_dim = max(_LEAST_QUERIES, power_of_two(shape.head_dim))
        parts = sums = query
        if work.num_splits > 1:
            heads = len(work.pairs) * shape.num_heads * work.num_splits
            parts = query.new_empty(heads, shape.head_dim, dtype=torch.float32)
            sums = query.new_empty(heads, 2, dtype=torch.float32)
        self._kernels.paged_attention_kernel[(len(work.pairs), shape.num_kv_heads, work.num_splits)](
            query,
            self._pool[2 * layer],
            self._pool[2 * layer + 1],
            out,
            work.pairs,
            self._row_bounds,
            self._context_lengths,
            self._block_table,
            parts,
            sums,
            self._block_table.shape[1],
            shape.scale,
            NUM_HEADS=shape.num_heads,
            NUM_KV_HEADS=shape.num_kv_heads,
            GROUP=shape.num_heads // shape.num_kv_heads,
            HEAD_DIM=shape.head_dim,
            PADDED_DIM=padded_dim,
            ROWS=each.rows,
            QUERIES=each.queries,
            KEYS=each.keys,
            BLOCK_TOKENS=self._block_tokens,
            SPLITS=work.num_splits,
            num_warps=each.warps,
            num_stages=each.stages,
        )
        if work.num_splits > 1:
            self._kernels.join_splits_kernel[(len(work.pairs), shape.num_heads)](
                parts,
                sums,
                work.pairs,
                out,
                NUM_HEADS=shape.num_heads,
                HEAD_DIM=shape.head_dim,
                PADDED_DIM=padded_dim,
                SPLITS=work.num_splits,
                num_warps=4,
            )


def _pairs(places: Sequence[tuple[int, Segment]], rows: int, device: torch.device) -> torch.Tensor:
    """[programs, 2] int32: a segment and the first of its rows that the program takes."""
    pairs = [
        (place, segment.first_row + first)
        for place, segment in places
        for first in range(0, segment.num_rows, rows)
    ]
    return tensor_on(device, pairs, torch.int32)


def power_of_two(size: int) -> int:
    """The least that is not under `size`."""
    return 1 << (size - 1).bit_length()
