"""From tokens to slots: where consecutive tokens lie in blocks, in as few runs as possible.

A slot is a token's place in a pool: block * block_tokens + offset in the block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_FEW = 16


class Run(NamedTuple):
    """Tokens that lie in consecutive slots."""

    first_token: int
    first_slot: int
    num_tokens: int


class CopyRun(NamedTuple):
    """Tokens that lie in consecutive slots at both ends: one copy per plane."""

    source_slot: int
    target_slot: int
    num_tokens: int


class BlockTable:
    """A sequence's blocks as runs of consecutive ones: token t is in blocks[t // block_tokens].

    With `skip_tokens` the first so many tokens of the blocks are none of the table's.
    Built in one vectorised pass where there are many, because a sequence has thousands of
    blocks and is asked for its runs per layer and slice.
    """

    def __init__(self, blocks: Sequence[int], block_tokens: int, skip_tokens: int = 0) -> None:
        firsts = _few_run_starts(blocks) if len(blocks) <= _FEW else _run_starts(blocks)
        self.num_tokens = len(blocks) * block_tokens - skip_tokens
        self._tokens = [first * block_tokens - skip_tokens for first in firsts]  # where each run starts
        self._slots = [blocks[first] * block_tokens for first in firsts]

    def runs(self, first_token: int, num_tokens: int) -> Iterator[Run]:
        """Raises IndexError if the blocks do not hold these tokens."""
        token, end = first_token, first_token + num_tokens
        if token < 0 or end > self.num_tokens:
            raise IndexError(f"tokens {token} to {end} are not within the {self.num_tokens} of the blocks")
        index = bisect_right(self._tokens, token) - 1
        while token < end:
            stop = self._tokens[index + 1] if index + 1 < len(self._tokens) else self.num_tokens
            count = min(stop, end) - token
            yield Run(token, self._slots[index] + token - self._tokens[index], count)
            token += count
            index += 1


def _few_run_starts(blocks: Sequence[int]) -> list[int]:
    return [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1] + 1]


def _run_starts(blocks: Sequence[int]) -> list[int]:
    numbers = np.fromiter(blocks, np.int64, len(blocks))
    starts: list[int] = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
    return starts


def copy_runs(source: Iterator[Run], target: Iterator[Run]) -> Iterator[CopyRun]:
    """Splits two lists of runs over the same tokens where either breaks."""
    here, there = next(source, None), next(target, None)
    while here is not None and there is not None:
        count = min(here.num_tokens, there.num_tokens)
        yield CopyRun(here.first_slot, there.first_slot, count)
        here = _rest(here, count) or next(source, None)
        there = _rest(there, count) or next(target, None)


def _rest(run: Run, done: int) -> Run | None:
    if run.num_tokens == done:
        return None
    return Run(run.first_token + done, run.first_slot + done, run.num_tokens - done)
