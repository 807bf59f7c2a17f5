"""grpc.health.v1 of the coordinator, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.listening.health import HealthBoard

SERVICE = "elasticmm.v1.Inference"
REQUEST = health_pb2.HealthCheckRequest(service=SERVICE)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@dataclass
class Bench:
    board: HealthBoard
    stub: Any


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    server, board = grpc.aio.server(), HealthBoard()
    board.add_to(server, (SERVICE,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Bench(board, health_pb2_grpc.HealthStub(channel))
    await server.stop(None)


async def status_of(watch: Any) -> int:
    response = await asyncio.wait_for(watch.read(), 30)
    assert isinstance(response, health_pb2.HealthCheckResponse)
    return int(response.status)


async def test_check(bench: Bench) -> None:
    assert (await bench.stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await bench.stub.Check(REQUEST)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert SERVICE in (raised.value.details() or "")
    bench.board.note(SERVICE, False)
    assert (await bench.stub.Check(REQUEST)).status == NOT_SERVING


async def test_changes_reach_who_watches_after_another_has_left(bench: Bench) -> None:
    watches = [bench.stub.Watch(REQUEST) for _ in range(2)]
    assert [await status_of(each) for each in watches] == [UNKNOWN, UNKNOWN]
    watches[0].cancel()
    bench.board.note(SERVICE, True)
    assert await status_of(watches[1]) == SERVING
    late = bench.stub.Watch(REQUEST)
    assert await status_of(late) == SERVING
    bench.board.note(SERVICE, False)
    assert [await status_of(each) for each in (watches[1], late)] == [NOT_SERVING, NOT_SERVING]


async def test_nothing_serves_again_once_it_leaves(bench: Bench) -> None:
    bench.board.note(SERVICE, True)
    watch = bench.stub.Watch(REQUEST)
    assert await status_of(watch) == SERVING
    bench.board.leave()
    assert await status_of(watch) == NOT_SERVING
    bench.board.note(SERVICE, False)
    bench.board.note(SERVICE, True)
    assert (await bench.stub.Check(REQUEST)).status == NOT_SERVING
    assert (await bench.stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
