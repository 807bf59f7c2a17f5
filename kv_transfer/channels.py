"""gRPC channels to peers, one per endpoint and life of the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import grpc

from core.access import token_metadata
from elasticmm.v1 import transfer_pb2_grpc
from kv_transfer.errors import TransferError
from kv_transfer.statuses import cause_of
from kv_transfer.tls import Dialer, TlsFiles, connection_problem
from kv_transfer.transports.base import PeerAddress

MAX_MESSAGE_BYTES = 8 << 20
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
Response = TypeVar("Response")
MESSAGE_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.max_frame_size", (1 << 24) - 1),  # the largest there is: fewer, longer frames
)
SERVER_OPTIONS = (  # of a server that holds the transfer service
    *MESSAGE_OPTIONS,
    ("grpc.http2.max_ping_strikes", 0),  # senders may ask as often as they like whether it is still there
)
CHANNEL_OPTIONS = (
    *MESSAGE_OPTIONS,
    # A connection whose bytes get lost without a reset is given up, and the next call makes another,
    # which is tried for as long as is set here: the name speaks of something else.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of gRPC's own pings: while one is out it sends no other
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # a restarted peer does not inherit a dead connection's backoff
)


class Channels:
    """Used on one loop; `metadata` goes with every call. With `tls` no peer is spoken to in plain text."""

    def __init__(self, token: str, tls: TlsFiles | None = None) -> None:
        self.metadata = token_metadata(token)
        self._dialer = Dialer(tls)
        self._channels: dict[PeerAddress, grpc.aio.Channel] = {}
        self._answered: set[PeerAddress] = set()  # since their channel was made
        self._closing: set[asyncio.Task[None]] = set()

    def stub(self, peer: PeerAddress) -> transfer_pb2_grpc.TransferAsyncStub:
        """A stub on the peer's channel, which is made when it is first asked for."""
        if peer not in self._channels:
            self._channels[peer] = self._dialer.open(peer.endpoint, CHANNEL_OPTIONS)
        return transfer_pb2_grpc.TransferStub(self._channels[peer])  # type: ignore[return-value]

    async def answer(self, peer: PeerAddress, call: Awaitable[Response], what: str) -> Response:
        """Awaits a call to the peer; raises TransferError, which begins with `what`."""
        try:
            response = await call
        except grpc.RpcError as error:
            if error.code() not in _NO_ANSWER:
                self._answered.add(peer)
            raise call_error(what, error, has_answered=peer in self._answered) from error
        self._answered.add(peer)
        return response

    def forget(self, instance_id: str, *, but: PeerAddress | None = None) -> None:
        """Closes the instance's channels (not that to `but`); calls in flight on them end."""
        for peer in [peer for peer in self._channels if peer.instance_id == instance_id and peer != but]:
            self._answered.discard(peer)
            closing = asyncio.get_running_loop().create_task(self._channels.pop(peer).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for instance_id in {peer.instance_id for peer in self._channels}:
            self.forget(instance_id)
        await asyncio.gather(*self._closing)


def call_error(what: str, error: grpc.RpcError, *, has_answered: bool = True) -> TransferError:
    """A failed call as our error, which begins with `what`; cause "TLS" where only TLS can be at fault.

    A connection that breaks is a matter of TLS only where the peer never answered on it.
    """
    code, details = error.code(), str(error.details())
    hint, is_sure = connection_problem(details) if code is grpc.StatusCode.UNAVAILABLE else ("", False)
    if has_answered and not is_sure:
        hint = ""
    message = f"{what}: {code.name}: {details}" + (f" ({hint})" if hint else "")
    return TransferError("TLS" if is_sure else cause_of(code), message)
