"""Connections to the coordinator: the more streams there are, the more of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import grpc

from elasticmm.v1 import inference_pb2_grpc as pb_grpc

# What proxies and servers commonly allow on one connection; a stream past that would wait without a word.
STREAMS_PER_CHANNEL = 100
MAX_CHANNELS = 32


class Channels:
    """`lend` for each call; `retire` in the end: a channel closes with the last call that it is lent to."""

    def __init__(self, open_one: Callable[[], grpc.aio.Channel]) -> None:
        self._open_one = open_one
        self._lent: dict[grpc.aio.Channel, int] = {}
        self._stubs: dict[grpc.aio.Channel, pb_grpc.InferenceAsyncStub] = {}
        self._is_retired = False

    def __len__(self) -> int:
        return len(self._lent)

    @property
    def num_lent(self) -> int:
        """Calls under way."""
        return sum(self._lent.values())

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[pb_grpc.InferenceAsyncStub]:
        channel = self._least_used()
        self._lent[channel] += 1
        try:
            yield self._stubs[channel]
        finally:
            self._lent[channel] -= 1
            if self._is_retired:
                await self._close_unused()

    async def retire(self) -> None:
        self._is_retired = True
        await self._close_unused()

    def _least_used(self) -> grpc.aio.Channel:
        best = min(self._lent, key=self._lent.__getitem__, default=None)
        if best is not None and (self._lent[best] < STREAMS_PER_CHANNEL or len(self._lent) == MAX_CHANNELS):
            return best
        channel = self._open_one()
        self._lent[channel] = 0
        self._stubs[channel] = cast("pb_grpc.InferenceAsyncStub", pb_grpc.InferenceStub(channel))
        return channel

    async def _close_unused(self) -> None:
        for channel in [channel for channel, count in self._lent.items() if not count]:
            del self._lent[channel], self._stubs[channel]
            await channel.close()
