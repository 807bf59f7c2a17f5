"""The sending end of the benchmark, over one transport."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from benchmarks.transfer.shape import FINGERPRINT, LAYOUT, NUM_LAYERS, TOKEN
from core.ids import host_id
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.segment import SharedSegment
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class Sent:
    """One transfer's moments, CLOCK_MONOTONIC, which all processes of a host share."""

    asked_ns: int
    granted_ns: int  # the first push comes right after
    committed_ns: int  # commit returned

    @property
    def whole_s(self) -> float:
        return (self.committed_ns - self.asked_ns) / 1e9

    @property
    def write_s(self) -> float:
        return (self.committed_ns - self.granted_ns) / 1e9


class Pair:
    """A sender, its source pool and the peer; with `tls` under a name of its own."""

    def __init__(
        self,
        transport: str,
        peer: PeerAddress,
        segment: SharedSegment,
        source: Pool,
        tls: TlsFiles | None = None,
    ) -> None:
        self.transport = transport if tls is None else f"{transport}-tls"
        self._peer = peer
        self._segment = segment
        self._source = source
        self._sender = Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="sender",
            host_id=host_id(),
            token=TOKEN,
            transports=[transport],
            tls=tls,
        )
        self._num_sent = 0

    async def send(self, num_blocks: int, num_pushes: int = NUM_LAYERS) -> Sent:
        """Pushes some layers at a time: by default one, as a prefill does."""
        self._num_sent += 1
        num_tokens = num_blocks * LAYOUT.block_tokens
        key = f"{self.transport}-{self._num_sent}", 0
        asked_ns = time.monotonic_ns()
        outgoing = await self._sender.open(self._peer, key, PayloadKind.KV, 0, num_tokens, self._source)
        granted_ns = time.monotonic_ns()
        step = LAYOUT.num_planes // num_pushes
        for first in range(0, LAYOUT.num_planes, step):
            outgoing.push(0, num_tokens, range(first, first + step), range(num_blocks))
        await outgoing.commit(num_tokens)
        return Sent(asked_ns, granted_ns, time.monotonic_ns())

    def check(self, num_blocks: int) -> None:
        """What is in the receiver's first blocks is what was sent."""
        theirs = self._segment.tensor(torch.int16, tuple(self._source.tensor.shape))[:, :num_blocks]
        if not torch.equal(theirs, self._source.tensor.view(torch.int16)[:, :num_blocks]):
            raise SystemExit(f"{self.transport}: the bytes that arrived are not those that were sent")

    async def close(self) -> None:
        await self._sender.close()
