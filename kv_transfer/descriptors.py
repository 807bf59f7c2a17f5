"""From the same tokens at two ends to the copies that move them, across block sizes, orders and heads.

A copy moves, in every plane, equally long pieces of consecutive tokens that lie
equally far apart at either end, so that one strided copy takes them all:

    source  |tokens|······|tokens|······|tokens|      source.step from start to start
    target  |tokens|··|tokens|··|tokens|              target.step

Tokens are consecutive in memory across blocks where an order allows it, else
within one block. `copies` serves transports that copy between mapped memory;
`byte_ranges` turns the same copies into flat ranges for those that move raw memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_transfer.layout import PoolLayout, Strides
from kv_transfer.runs import CopyRun, Run, copy_runs

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Part(NamedTuple):
    """One end of a copy."""

    offset: int  # bytes to the first of it, in plane 0
    step: int  # bytes from one piece to the next
    num_pieces: int
    num_tokens: int  # of each piece


class Copy(NamedTuple):
    """The parts have the same number of pieces and tokens."""

    source: Part
    target: Part


class ByteRanges(NamedTuple):
    """[num_ranges] each, in order of the source; offsets from the start of each end's memory."""

    source_offsets: Offsets
    target_offsets: Offsets
    lengths: Offsets


@dataclass(frozen=True, slots=True)
class End:
    """One end's memory, seen as the heads that are moved."""

    strides: Strides
    block_tokens: int
    head_offset: int  # bytes to the first of the heads, in a token
    num_heads: int
    head_bytes: int

    @classmethod
    def of(cls, layout: PoolLayout, num_blocks: int, heads: range) -> End:
        """A pool's; it holds all of `heads`."""
        strides = layout.strides(num_blocks)
        head_offset = (heads.start - layout.first_head) * strides.head
        return cls(strides, layout.block_tokens, head_offset, len(heads), layout.head_bytes)

    @classmethod
    def packed(cls, num_tokens: int, num_heads: int, head_bytes: int) -> End:
        """Memory that holds nothing else: plane by plane, token by token, head by head."""
        token_bytes = num_heads * head_bytes
        plane_bytes = num_tokens * token_bytes
        return cls(
            Strides(plane_bytes, plane_bytes, token_bytes, head_bytes), num_tokens, 0, num_heads, head_bytes
        )

    @property
    def token_bytes(self) -> int:
        """Moved per token and plane."""
        return self.num_heads * self.head_bytes

    @property
    def is_linear(self) -> bool:
        """Whether the next token is as far away across the end of a block as within one."""
        return self.strides.block == self.block_tokens * self.strides.token

    def tokens_from(self, slot: int) -> int:
        """How many tokens from this slot on are equally far apart."""
        return sys.maxsize if self.is_linear else self.block_tokens - slot % self.block_tokens

    def offset(self, slot: int) -> int:
        block, token = divmod(slot, self.block_tokens)
        return self.head_offset + block * self.strides.block + token * self.strides.token

    def start(self, planes: range, part: Part) -> int:
        return planes.start * self.strides.plane + part.offset

    def shape(self, planes: range, part: Part) -> tuple[int, int, int, int, int]:
        """[planes, pieces, tokens, heads, head_bytes]"""
        return len(planes), part.num_pieces, part.num_tokens, self.num_heads, self.head_bytes

    def steps(self, part: Part) -> tuple[int, int, int, int, int]:
        """Bytes between neighbours on the axes of `shape`."""
        return self.strides.plane, part.step, self.strides.token, self.strides.head, 1

    def view(self, memory: Bytes, planes: range, part: Part) -> Bytes:
        """The part in this end's memory [size_bytes], shaped as `shape` says, without a copy.

        Raises ValueError or TypeError where that is not within the memory.
        """
        # Spelled out, because calls would double its cost, and scattered blocks need one view each.
        offset, step, num_pieces, num_tokens = part
        plane, _, token, head = self.strides
        shape = len(planes), num_pieces, num_tokens, self.num_heads, self.head_bytes
        start = planes.start * plane + offset
        return np.ndarray(shape, np.uint8, memory, start, (plane, step, token, head, 1))


def copies(
    source: End, source_runs: Iterator[Run], target: End, target_runs: Iterator[Run]
) -> Iterator[Copy]:
    """Moves the tokens of the runs, which are the same at both ends, in order."""
    first: tuple[int, int] | None = None  # offsets of the first piece of the copy under way
    steps = (0, 0)
    num_pieces = num_tokens = 0
    for here, there, count in _pieces(source, target, copy_runs(source_runs, target_runs)):
        if first is not None and count == num_tokens:
            if num_pieces == 1 and here > first[0] and there > first[1]:
                steps = here - first[0], there - first[1]
            if (here, there) == (first[0] + num_pieces * steps[0], first[1] + num_pieces * steps[1]):
                num_pieces += 1
                continue
        if first is not None:
            yield _copy(first, steps, num_pieces, num_tokens)
        first, steps, num_pieces, num_tokens = (here, there), (0, 0), 1, count
    if first is not None:
        yield _copy(first, steps, num_pieces, num_tokens)


def byte_ranges(source: End, target: End, planes: range, moves: Iterable[Copy]) -> ByteRanges:
    """The copies' bytes in these planes as flat ranges, merged where they touch at both ends."""
    parts = [_ranges_of(source, target, planes, copy) for copy in moves]
    if not parts:
        return ByteRanges(*(np.zeros(0, np.int64) for _ in range(3)))
    return _merged(ByteRanges(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))


def _pieces(source: End, target: End, runs: Iterator[CopyRun]) -> Iterator[tuple[int, int, int]]:
    """Offsets at both ends and number of tokens, cut where either end's tokens change their distance."""
    if source.is_linear and target.is_linear:  # the usual ends, spared what they do not need
        here, there = source.strides.token, target.strides.token
        for source_slot, target_slot, count in runs:
            yield source.head_offset + source_slot * here, target.head_offset + target_slot * there, count
        return
    for run in runs:
        done = 0
        while done < run.num_tokens:
            here, there = run.source_slot + done, run.target_slot + done
            count = min(run.num_tokens - done, source.tokens_from(here), target.tokens_from(there))
            yield source.offset(here), target.offset(there), count
            done += count


def _copy(first: tuple[int, int], steps: tuple[int, int], num_pieces: int, num_tokens: int) -> Copy:
    return Copy(
        Part(first[0], steps[0], num_pieces, num_tokens), Part(first[1], steps[1], num_pieces, num_tokens)
    )


def _ranges_of(source: End, target: End, planes: range, copy: Copy) -> ByteRanges:
    """Axes that are dense at both ends make the ranges longer, the others make more of them."""
    length = source.head_bytes
    here = np.array([source.start(planes, copy.source)])
    there = np.array([target.start(planes, copy.target)])
    axes = zip(
        source.shape(planes, copy.source)[:-1],
        source.steps(copy.source)[:-1],
        target.steps(copy.target)[:-1],
        strict=True,
    )
    for count, source_step, target_step in sorted(axes, key=lambda axis: axis[1]):
        if source_step == target_step == length:
            length *= count
        elif count > 1:
            numbers = np.arange(count)
            here = (here[:, None] + numbers * source_step).ravel()
            there = (there[:, None] + numbers * target_step).ravel()
    return ByteRanges(here, there, np.full(len(here), length))


def _merged(ranges: ByteRanges) -> ByteRanges:
    order = np.argsort(ranges.source_offsets, kind="stable")
    here, there, lengths = (column[order] for column in ranges)
    touches = (here[:-1] + lengths[:-1] == here[1:]) & (there[:-1] + lengths[:-1] == there[1:])
    starts = np.flatnonzero(np.concatenate(([True], ~touches)))
    return ByteRanges(here[starts], there[starts], np.add.reduceat(lengths, starts))
