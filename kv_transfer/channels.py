"""gRPC channels to peers, one per endpoint and life of the peer."""

from __future__ import annotations

import asyncio

import grpc

from core.access import token_metadata
from elasticmm.v1 import transfer_pb2_grpc
from kv_transfer.transports.base import PeerAddress

MAX_MESSAGE_BYTES = 8 << 20
MESSAGE_OPTIONS = (  # for the transfer service's server, too
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.max_frame_size", (1 << 24) - 1),  # the largest there is: fewer, longer frames
)
CHANNEL_OPTIONS = (
    *MESSAGE_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # a restarted peer does not inherit a dead connection's backoff
)


class Channels:
    """Used on one loop; `metadata` goes with every call."""

    def __init__(self, token: str) -> None:
        self.metadata = token_metadata(token)
        self._channels: dict[PeerAddress, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def stub(self, peer: PeerAddress) -> transfer_pb2_grpc.TransferAsyncStub:
        """A stub on the peer's channel, which is made when it is first asked for."""
        if peer not in self._channels:
            self._channels[peer] = grpc.aio.insecure_channel(peer.endpoint, options=CHANNEL_OPTIONS)
        return transfer_pb2_grpc.TransferStub(self._channels[peer])  # type: ignore[return-value]

    def forget(self, instance_id: str, *, but: PeerAddress | None = None) -> None:
        """Closes the instance's channels (not that to `but`); calls in flight on them end."""
        for peer in [peer for peer in self._channels if peer.instance_id == instance_id and peer != but]:
            closing = asyncio.get_running_loop().create_task(self._channels.pop(peer).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for instance_id in {peer.instance_id for peer in self._channels}:
            self.forget(instance_id)
        await asyncio.gather(*self._closing)


def code_name(error: grpc.RpcError) -> str:
    return str(error.code().name)
