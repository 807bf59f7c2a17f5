"""What the transfer tests share: layouts, a host that remembers, one receiving instance."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import torch

from kv_transfer.layout import PayloadKind
from kv_transfer.leases import OPEN_STATES, Key
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.receiver import TransferReceiver, UnknownRequest
from kv_transfer.segment import SHM_DIR
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.transports import nixl_agent
from kv_transfer.transports.registry import REGISTRY

TOKEN = "test-token"
FINGERPRINT = "f00d"
CLUSTER = f"transfer-tests-{os.getpid()}"
KV = kv_layout(FINGERPRINT, torch.float32, num_layers=3, num_heads=2, head_dim=4, block_tokens=4)
EMBEDDING = embedding_layout(FINGERPRINT, torch.bfloat16, width=24)
KEY: Key = ("req-1", 0)
needs_nixl = pytest.mark.skipif(bool(nixl_agent.refusal()), reason=nixl_agent.refusal())
FOR_CPU = ("shm", "collective", "nixl", "grpc")
HERE = tuple(name for name in FOR_CPU if not REGISTRY[name].refusal())
EACH = [
    pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason=f"{name} cannot be had here"))
    for name in FOR_CPU
]


@dataclass
class RecordingHost:
    """Knows some requests and remembers what it was handed."""

    known: set[Key] = field(default_factory=lambda: {KEY})
    kv: list[tuple[Key, list[int], int, tuple[int, ...]]] = field(default_factory=list)
    embeddings: list[tuple[Key, int, list[int], int]] = field(default_factory=list)
    expected: list[tuple[Key, PayloadKind, int | None, int]] = field(default_factory=list)
    refuses: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        self.expected.append((key, kind, item_index, num_tokens))
        async with self.changed:
            await self.changed.wait_for(lambda: key in self.known)

    async def learn(self, key: Key) -> None:
        async with self.changed:
            self.known.add(key)
            self.changed.notify_all()

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        if self.refuses:
            raise UnknownRequest("the request is gone")
        self.kv.append((key, block_ids, num_tokens, outputs))

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        self.embeddings.append((key, item_index, block_ids, num_tokens))


@dataclass
class Receiving:
    """One receiving instance."""

    receiver: TransferReceiver
    host: RecordingHost
    server: grpc.aio.Server
    address: PeerAddress

    @property
    def kv(self) -> Pool:
        return self.receiver.pools[PayloadKind.KV]

    @property
    def embeddings(self) -> Pool:
        return self.receiver.pools[PayloadKind.EMBEDDING]

    @property
    def num_open(self) -> int:
        return sum(lease.state in OPEN_STATES for lease in self.receiver.leases)

    async def leave(self) -> None:
        """As a process that ends, but for its memory."""
        await self.server.stop(None)
        await self.receiver.close()

    def assert_nothing_is_held(self) -> None:
        self.receiver.check_integrity()
        assert list(self.receiver.leases) == []
        for pool in self.receiver.pools.values():
            assert pool.blocks.num_free == pool.num_blocks


Receive = Callable[..., Awaitable[Receiving]]
MakeSender = Callable[..., Sender]


def segments() -> list[Path]:
    return sorted(SHM_DIR.glob(f"elasticmm-{CLUSTER}-*"))


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that will happen; a test that hangs here fails by its time limit."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)
