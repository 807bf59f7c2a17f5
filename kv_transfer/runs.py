"""From tokens to slots: where consecutive tokens lie in blocks, in as few runs as possible.

A slot is a token's place in a pool: block * block_tokens + offset in the block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


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

    Built in one vectorised pass, because a sequence has thousands of blocks and
    is asked for its runs per layer and slice.
    """

    def __init__(self, blocks: Sequence[int], block_tokens: int) -> None:
        numbers = np.fromiter(blocks, np.int64, len(blocks))
        firsts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        self.num_tokens = len(blocks) * block_tokens
        self._tokens: list[int] = (firsts * block_tokens).tolist()  # where each run starts
        self._slots: list[int] = (numbers[firsts] * block_tokens).tolist()

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
