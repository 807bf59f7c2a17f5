"""The lean client reads what gRPC's own servers write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from benchmarks.doors.http2 import GrpcConnection

PATH = "/house.Streams/Count"


async def count(request: bytes, context: grpc.aio.ServicerContext) -> None:
    """As many messages as the request has bytes, each longer than the one before."""
    for length in range(len(request)):
        await context.write(b"x" * length * 1000)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = grpc.aio.server()
    method = grpc.unary_stream_rpc_method_handler(count)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("house.Streams", {"Count": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


def read_all(port: int) -> dict[int, list[int]]:
    """Lengths of the messages of two calls that share a connection."""
    connection = GrpcConnection("127.0.0.1", port)
    lengths: dict[int, list[int]] = {connection.call(PATH, b"ab"): [], connection.call(PATH, b"c" * 40): []}
    ended: set[int] = set()
    while ended != lengths.keys():
        received = connection.receive()
        for stream, message in received.messages:
            lengths[stream].append(len(message))
        ended.update(received.ended)
    connection.close()
    return lengths


async def test_messages_of_all_streams_come_whole_and_in_order(port: int) -> None:
    import asyncio

    first, second = (await asyncio.to_thread(read_all, port)).values()
    assert first == [0, 1000]
    assert second == [length * 1000 for length in range(40)]
