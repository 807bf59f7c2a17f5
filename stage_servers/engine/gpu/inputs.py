"""What captured steps read: tensors that stay where they are, filled anew for every step.

Rows of decodes come first, those of chunks behind the room for decodes; so do their segments. Surplus
rows have no slot, surplus segments no context, and surplus programs attend no rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stage_servers.engine.attention.batch import PackedBatch, StepRows
from stage_servers.engine.device import moved_to, tensor_on
from stage_servers.engine.families.adapter import FamilyAdapter, MediaRows

MOST_DECODES = 256
MOST_CHUNK_ROWS = 512
MOST_CHUNKS = 16  # of sequences


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a captured step has room for."""

    decodes: int
    chunk_rows: int

    @property
    def rows(self) -> int:
        return self.decodes + self.chunk_rows

    @property
    def segments(self) -> int:
        """One more than there may be chunks: surplus programs belong to the last, which stays empty."""
        return self.decodes + (MOST_CHUNKS + 1 if self.chunk_rows else 0)


@dataclass(frozen=True, slots=True, eq=False)
class PackedStep:
    """What one step computes."""

    batch: PackedBatch
    token_ids: torch.Tensor  # [rows] int64, on the host
    positions: torch.Tensor  # [3, rows] int64, on the host
    media: MediaRows | None  # in rows of chunks


class StepInputs:
    """Of one engine; all sizes share the memory of the largest. Engine thread only, in inference mode."""

    def __init__(self, family: FamilyAdapter, device: torch.device, width: int, pair_rows: int) -> None:
        """`width`: most blocks of a sequence; `pair_rows`: of a chunk's, how many one program attends."""
        self._family = family
        self._device = device
        self._pair_rows = pair_rows
        largest = StepSize(MOST_DECODES, MOST_CHUNK_ROWS)
        weight = family.text_model.norm.weight
        self.width = width
        self._tokens = torch.zeros(4, largest.rows, dtype=torch.int64, device=device)  # token, position
        self._embedded = torch.zeros(largest.rows, len(weight), dtype=weight.dtype, device=device)
        self._extras = self._embedded.new_zeros(family.num_extras, *self._embedded.shape)
        self._slots = torch.full((largest.rows,), -1, dtype=torch.int32, device=device)
        self._context_lengths = torch.zeros(largest.segments, dtype=torch.int32, device=device)
        self._row_bounds = torch.zeros(largest.segments + 1, dtype=torch.int32, device=device)
        self._block_table = torch.zeros(largest.segments, width, dtype=torch.int32, device=device)
        self._pairs = torch.zeros(self._num_pairs(MOST_CHUNK_ROWS), 2, dtype=torch.int32, device=device)

    def embedded(self, size: StepSize) -> torch.Tensor:
        """[rows, hidden], which the layers change."""
        return self._embedded[: size.rows]

    def extras(self, size: StepSize) -> list[torch.Tensor]:
        """[rows, hidden] to be added behind each of the first layers; none where no row is of media."""
        return [extra[: size.rows] for extra in self._extras] if size.chunk_rows else []

    def positions(self, size: StepSize) -> torch.Tensor:
        """[3, rows]"""
        return self._tokens[1:, : size.rows]

    def rows(self, size: StepSize) -> StepRows:
        num_pairs = self._num_pairs(size.chunk_rows) if size.chunk_rows else 0
        return StepRows(
            size.decodes,
            self._slots[: size.rows],
            self._context_lengths[: size.segments],
            self._row_bounds[: size.segments + 1],
            self._block_table[: size.segments],
            self._pairs[:num_pairs],
        )

    def clear(self) -> None:
        """What runs now leaves the pool alone."""
        self._slots.fill_(-1)
        self._context_lengths.zero_()
        self._row_bounds.zero_()
        self._pairs.zero_()

    def fill(self, size: StepSize, step: PackedStep) -> None:
        """With a step that the size has room for."""
        batch, media = step.batch, step.media
        count, end = batch.num_decodes, size.decodes + batch.num_rows - batch.num_decodes
        shift = size.decodes - count  # of rows and segments of chunks
        tokens = torch.zeros(4, size.rows, dtype=torch.int64)
        for rows, places in ((slice(count), slice(count)), (slice(count, None), slice(size.decodes, end))):
            tokens[0, places], tokens[1:, places] = step.token_ids[rows], step.positions[:, rows]
        self._tokens[:, : size.rows].copy_(moved_to(self._device, tokens))
        self._slots[: size.rows].fill_(-1)
        self._slots[:count].copy_(batch.slots[:count])
        self._slots[size.decodes : end].copy_(batch.slots[count:])
        self._fill_segments(size, batch, shift)
        extras = self.extras(size)
        for extra in extras:
            extra.zero_()
        if media is not None:
            media = MediaRows(media.rows + shift, media.values)
            for extra, values in zip(extras, self._family.extras(media), strict=True):
                extra.index_copy_(0, media.rows, values)
        self.embedded(size).copy_(self._family.embed(self._tokens[0, : size.rows], media))

    def _fill_segments(self, size: StepSize, batch: PackedBatch, shift: int) -> None:
        count = batch.num_decodes
        chunks = batch.segments[count:]
        lengths = [0] * size.segments
        lengths[:count] = [segment.num_context for segment in batch.segments[:count]]
        bounds = [*range(size.decodes + 1), *[size.rows] * (size.segments - size.decodes)]
        pairs: list[tuple[int, int]] = []
        for place, segment in enumerate(chunks, size.decodes):
            first_row = segment.first_row + shift
            lengths[place], bounds[place + 1] = segment.num_context, first_row + segment.num_rows
            pairs += [(place, row) for row in range(first_row, bounds[place + 1], self._pair_rows)]
        self._context_lengths[: size.segments].copy_(tensor_on(self._device, lengths, torch.int32))
        self._row_bounds[: size.segments + 1].copy_(tensor_on(self._device, bounds, torch.int32))
        self._block_table[:count, : batch.width].copy_(batch.block_table[:count])
        if chunks:
            table = self._block_table[size.decodes : size.decodes + len(chunks)]
            table[:, : batch.width].copy_(batch.block_table[count:])
            num_pairs = self._num_pairs(size.chunk_rows)
            pairs += [(size.segments - 1, size.rows)] * (num_pairs - len(pairs))
            self._pairs[:num_pairs].copy_(tensor_on(self._device, pairs, torch.int32))

    def _num_pairs(self, chunk_rows: int) -> int:
        """Every chunk may leave one program with less than its rows."""
        return -(-chunk_rows // self._pair_rows) + MOST_CHUNKS
