"""A stream server in grpc.aio that does nothing but stream: what the library itself bears on one core."""

from __future__ import annotations

import asyncio
import itertools
from multiprocessing.connection import Connection

import grpc

from elasticmm.v1 import inference_pb2 as pb


async def _stream(request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> None:
    """Accepts the call, then sends it one token after the other as fast as it may."""
    await context.write(pb.GenerateEvent(accepted=pb.Accepted(request_id=request.request_id)))
    for index in itertools.count():
        tokens = pb.Tokens(first_index=index, token_ids=(index % 512,), text=" the")
        await context.write(pb.GenerateEvent(tokens=tokens))


def _handlers() -> grpc.GenericRpcHandler:
    method = grpc.unary_stream_rpc_method_handler(
        _stream,
        request_deserializer=pb.GenerateRequest.FromString,
        response_serializer=pb.GenerateEvent.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("elasticmm.v1.Inference", {"Generate": method})


def run(pipe: Connection) -> None:
    """A process: sends its port, and ends with the pipe."""
    import uvloop

    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    await asyncio.get_running_loop().run_in_executor(None, _until_end, pipe)
    await server.stop(0)


def _until_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return
