"""Copies of a pool's blocks in ordinary memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from kv_transfer.pool import Pool

if TYPE_CHECKING:
    import torch


class HostStore:
    """Each copy has a number, in the place of blocks. For pools of one plane."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._copies: dict[int, torch.Tensor] = {}
        self._next_number = count()

    def __len__(self) -> int:
        return len(self._copies)

    def write(self, blocks: Sequence[int]) -> tuple[int]:
        """Copies whole blocks off the pool; returns where they lie here."""
        tokens = self._pool.read_tokens(blocks, len(blocks) * self._pool.layout.block_tokens)
        number = next(self._next_number)
        self._copies[number] = tokens.to("cpu", copy=True)
        return (number,)

    def read(self, place: Sequence[int], blocks: Sequence[int]) -> None:
        """Copies them into as many blocks of the pool."""
        self._pool.fill(blocks, self._copies[place[0]])

    def drop(self, place: Sequence[int]) -> None:
        del self._copies[place[0]]
