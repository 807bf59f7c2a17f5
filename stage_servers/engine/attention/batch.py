"""Where the rows of a packed step lie in the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from stage_servers.engine.device import tensor_on


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one sequence in a packed step."""

    first_row: int
    num_rows: int
    num_context: int  # tokens with KV once this step's rows are written
    blocks: tuple[int, ...]

    @property
    def first_token(self) -> int:
        return self.num_context - self.num_rows


@dataclass(frozen=True)
class PackedBatch:
    """Rows of several sequences behind one another; decodes (one row each) come first."""

    segments: Sequence[Segment]
    num_decodes: int
    block_tokens: int
    device: torch.device

    @property
    def num_rows(self) -> int:
        last = self.segments[-1]
        return last.first_row + last.num_rows

    @property
    def width(self) -> int:
        """The most blocks that a segment has."""
        return max(len(segment.blocks) for segment in self.segments)

    def make_tensors(self) -> None:
        """All of those below, before the device has work; else they are made when first asked for."""
        for tensor in (self.slots, self.block_table, self.context_lengths, self.row_bounds):
            assert tensor.device.type == self.device.type

    @cached_property
    def slots(self) -> torch.Tensor:
        """[rows] token slot in the pool (block * block_tokens + offset) of every row."""
        size = self.block_tokens
        slots = [
            segment.blocks[token // size] * size + token % size
            for segment in self.segments
            for token in range(segment.first_token, segment.num_context)
        ]
        return tensor_on(self.device, slots, torch.int64)

    @cached_property
    def block_table(self) -> torch.Tensor:
        """[segments, most blocks] int32 block ids, zero behind a segment's last block."""
        width = self.width
        rows = [[*segment.blocks, *[0] * (width - len(segment.blocks))] for segment in self.segments]
        return tensor_on(self.device, rows, torch.int32)

    @cached_property
    def context_lengths(self) -> torch.Tensor:
        """[segments] int32."""
        lengths = [segment.num_context for segment in self.segments]
        return tensor_on(self.device, lengths, torch.int32)

    @cached_property
    def row_bounds(self) -> torch.Tensor:
        """[segments + 1] int32 first row of every segment, and the end."""
        bounds = [*(segment.first_row for segment in self.segments), self.num_rows]
        return tensor_on(self.device, bounds, torch.int32)


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """Rows of a step in tensors that stay where they are from step to step: decodes, then chunks.

    Segment i, of the first `num_decodes`, is row i. A segment with a context of no tokens attends to
    nothing; a slot under zero is none.
    """

    num_decodes: int
    slots: torch.Tensor  # [rows] int32
    context_lengths: torch.Tensor  # [segments] int32
    row_bounds: torch.Tensor  # [segments + 1] int32
    block_table: torch.Tensor  # [segments, blocks] int32
    chunk_pairs: torch.Tensor  # [programs, 2] int32: a chunk's segment, and the first row that one attends
