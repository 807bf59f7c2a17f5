"""An embedding that waits for room at a peer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stage_servers.cache.held import HeldEmbedding

if TYPE_CHECKING:
    import torch

PATIENCE_S = 1.0  # most peers have room at once


class Parcel:
    """Whoever waits for room at a peer lets go of its own blocks after a while: the peer may be waiting for
    just these, and so each for the other. Used on the event loop.
    """

    def __init__(self, held: HeldEmbedding) -> None:
        """`held` is the caller's until it leaves the parcel; `release` is the caller's in any case."""
        self._held = held
        self._is_taken = False

    @property
    def held(self) -> HeldEmbedding:
        return self._held

    def take(self) -> torch.Tensor:
        """[num_tokens, embedding_width], where it stays from now on."""
        self._is_taken = True
        return self._held.embedding

    async def leave_blocks(self, patience_s: float = PATIENCE_S) -> None:
        """Copies it out of this instance's pool, unless it is taken before; cancelled when it was sent."""
        if not self._held.blocks:
            return
        await asyncio.sleep(patience_s)
        if self._is_taken:
            return
        copy = await asyncio.to_thread(self._held.embedding.clone)
        if not self._is_taken:
            left, self._held = self._held, HeldEmbedding(copy, lambda: None)
            left.release()

    def release(self) -> None:
        self._held.release()
