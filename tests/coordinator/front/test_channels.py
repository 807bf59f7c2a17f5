"""Streams are spread over connections, which close with the last of them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from coordinator.front.channels import MAX_CHANNELS, STREAMS_PER_CHANNEL, Channels


class Opened:
    """Channels to nowhere."""

    def __init__(self) -> None:
        self.channels: list[grpc.aio.Channel] = []

    def __call__(self) -> grpc.aio.Channel:
        self.channels.append(grpc.aio.insecure_channel("127.0.0.1:1"))
        return self.channels[-1]

    @property
    def states(self) -> list[grpc.ChannelConnectivity]:
        return [channel.get_state() for channel in self.channels]


async def test_a_channel_carries_so_many_streams_and_then_there_is_another() -> None:
    channels = Channels(Opened())
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS_PER_CHANNEL + 1):
            await stack.enter_async_context(channels.lend())
        assert (len(channels), channels.num_lent) == (2, STREAMS_PER_CHANNEL + 1)
    assert (len(channels), channels.num_lent) == (2, 0)
    await channels.retire()
    assert len(channels) == 0


async def test_there_are_no_more_than_may_be() -> None:
    channels = Channels(Opened())
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS_PER_CHANNEL * MAX_CHANNELS + 5):
            await stack.enter_async_context(channels.lend())
        assert len(channels) == MAX_CHANNELS
    await channels.retire()


async def test_who_retires_waits_for_what_is_lent() -> None:
    opened = Opened()
    channels = Channels(opened)
    async with channels.lend():
        await channels.retire()
        assert opened.states == [grpc.ChannelConnectivity.IDLE]
    assert opened.states == [grpc.ChannelConnectivity.SHUTDOWN]
    assert len(channels) == 0
