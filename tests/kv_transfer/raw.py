"""Calls to the transfer service as another implementation would make them."""

from __future__ import annotations

import grpc
import pytest

from core.access import token_metadata
from elasticmm.v1 import transfer_pb2, transfer_pb2_grpc
from kv_transfer.wire import layout_to
from tests.kv_transfer.loopback import KEY, KV, TOKEN, Receiving

GOOD = {
    "request_id": KEY[0],
    "num_tokens": 8,
    "layout": layout_to(KV),
    "receiver_epoch": 7,
    "sender_instance_id": "raw",
    "transports": ["grpc"],
}


class Raw:
    """One channel to a receiver; fields that are given replace good ones."""

    def __init__(self, peer: Receiving, token: str = TOKEN) -> None:
        self.channel = grpc.aio.insecure_channel(peer.address.endpoint)
        self.stub = transfer_pb2_grpc.TransferStub(self.channel)
        self.metadata = token_metadata(token)

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def open(self, **fields: object) -> transfer_pb2.OpenResponse:
        request = transfer_pb2.OpenRequest(**(GOOD | fields))
        return await self.stub.Open(request, metadata=self.metadata, timeout=30)

    async def write(self, *requests: transfer_pb2.WriteRequest) -> transfer_pb2.WriteResponse:
        return await self.stub.Write(iter(requests), metadata=self.metadata, timeout=30)

    async def commit(
        self, lease_id: int, num_tokens: int, outputs: tuple[int, ...] = (), **fields: object
    ) -> transfer_pb2.CommitResponse:
        good = {"written_bytes": num_tokens * KV.num_planes * KV.token_bytes, "output_token_ids": outputs}
        request = transfer_pb2.CommitRequest(lease_id=lease_id, num_tokens=num_tokens, **(good | fields))
        return await self.stub.Commit(request, metadata=self.metadata, timeout=30)

    async def leave(self, **fields: object) -> transfer_pb2.AbortResponse:
        """Gives up what was asked for by an `open` with the same fields."""
        asked = {"request_id": KEY[0], "kind": KV.kind, "sender_instance_id": "raw"}
        request = transfer_pb2.AbortRequest(**(asked | fields))
        return await self.stub.Abort(request, metadata=self.metadata)

    async def abort(self, lease_id: int) -> transfer_pb2.AbortResponse:
        return await self.stub.Abort(transfer_pb2.AbortRequest(lease_id=lease_id), metadata=self.metadata)


def refused(code: grpc.StatusCode, words: str) -> pytest.RaisesExc[grpc.aio.AioRpcError]:
    return pytest.RaisesExc(grpc.aio.AioRpcError, check=lambda e: e.code() is code and words in e.details())
