"""A call whose first write is cancelled can still be ended."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordinator.listening.headers_first import headers_first


async def test_a_cancelled_first_write_leaves_a_call_that_ends() -> None:
    async def give_up(_: object, context: grpc.aio.ServicerContext) -> None:
        writing = asyncio.create_task(headers_first(context)(b"x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "given up")

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(give_up)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"m": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="given up"):
            async with asyncio.timeout(30):
                _ = [each async for each in channel.unary_stream("/s/m")(b"")]
    await server.stop(None)
