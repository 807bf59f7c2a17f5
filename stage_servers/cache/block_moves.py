"""Carries out what a book decides: blocks are freed, and copied between device and host."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from core.cache.entry import Entry, Tier
from core.cache.moves import Move, MoveKind
from kv_transfer.blocks import BlockAllocator
from stage_servers.cache.host_blocks import HostBlocks


class BlockMoves:
    """Over a pool [planes, blocks, block_tokens, elements] and the RAM under it; one block per entry.

    Every entry on the device holds a reference to its block. Used on the engine thread.
    """

    def __init__(self, kv: torch.Tensor, blocks: BlockAllocator, num_host_blocks: int) -> None:
        self._kv = kv
        self._blocks = blocks
        self.host = HostBlocks(kv, num_host_blocks)

    def carry_out(self, moves: Iterable[Move], reserved: list[int]) -> None:
        """In their order; entries that come to the device get `reserved` blocks, which are taken off it."""
        freed: list[int] = []
        for move in moves:
            (block,) = move.blocks
            if move.kind is MoveKind.PROMOTE:
                self._promote(move.entry, block, reserved.pop())
            elif move.kind is MoveKind.DEMOTE:
                move.entry.blocks = (self.host.put(block),)
                freed.append(block)
            elif move.tier is Tier.HOST:
                self.host.give_back(block)
            else:
                freed.append(block)
        if freed:
            self._wait_for_copies()
            self._blocks.release(freed)

    def copy(self, entry: Entry, num_tokens: int, block: int) -> None:
        """The first tokens of an entry, from whichever tier, into a block that only the caller holds."""
        (source,) = entry.blocks
        if entry.tier is Tier.HOST:
            self.host.read(source, block, num_tokens)
        else:
            self._kv[:, block, :num_tokens] = self._kv[:, source, :num_tokens]
        self._wait_for_copies()

    def _promote(self, entry: Entry, host_block: int, block: int) -> None:
        self.host.read(host_block, block)
        self.host.give_back(host_block)
        entry.blocks = (block,)

    def _wait_for_copies(self) -> None:
        """A block that is free may be written to by a peer, past this device's queue."""
        if self._kv.is_cuda:
            torch.cuda.current_stream(self._kv.device).synchronize()
