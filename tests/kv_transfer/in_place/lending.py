"""A producer's pool with its lender, and a host that reads in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from kv_transfer.errors import UnknownRequest
from kv_transfer.in_place.lender import Lender
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress, Sender
from tests.kv_transfer.loopback import CLUSTER, EMBEDDING, KEY, RecordingHost

NUM_TOKENS = 40


@dataclass
class Reading:
    """What a host was handed."""

    key: Key
    item_index: int
    embedding: torch.Tensor
    let_go: Callable[[], None]


@dataclass
class ReadingHost(RecordingHost):
    read: list[Reading] = field(default_factory=list)

    def on_embedding_in_place(
        self, key: Key, item_index: int, embedding: torch.Tensor, let_go: Callable[[], None]
    ) -> None:
        if self.refuses:
            raise UnknownRequest("the request is gone")
        self.read.append(Reading(key, item_index, embedding, let_go))


@dataclass
class Blocks:
    """Of the pool, that go back with their last user; implements InUse."""

    pool: Pool
    blocks: list[int]
    num_users: int = 1

    def share(self) -> None:
        self.num_users += 1

    def release(self) -> None:
        self.num_users -= 1
        if not self.num_users:
            self.pool.blocks.release(self.blocks)


class Producer:
    """Eight blocks, of which items take three each."""

    def __init__(
        self, sender: Sender, cluster: str = CLUSTER, *, is_shared: bool = True, epoch: int = 5
    ) -> None:
        owner = SegmentOwner(cluster, "producer", epoch) if is_shared else None
        self.pool = Pool(EMBEDDING, 8, owner=owner)
        self.lender = Lender(self.pool, sender.in_place)

    def make(self, seed: int = 1) -> Blocks:
        made = Blocks(self.pool, self.pool.blocks.allocate(3))
        self.pool.fill(made.blocks, embedding(seed))
        return made

    async def lend(self, peer: PeerAddress, made: Blocks, key: Key = KEY, item_index: int = 2) -> bool:
        """The producer itself has no use for it after that."""
        try:
            return await self.lender.lend(peer, key, item_index, NUM_TOKENS, made)
        finally:
            made.release()

    @property
    def num_free(self) -> int:
        self.lender.sweep()
        return self.pool.blocks.num_free

    def close(self) -> None:
        self.lender.close()
        self.pool.close()


def embedding(seed: int = 1) -> torch.Tensor:
    """[NUM_TOKENS, 24]"""
    made = torch.randn(NUM_TOKENS, 24, generator=torch.Generator().manual_seed(seed))
    return made.to(torch.bfloat16)
