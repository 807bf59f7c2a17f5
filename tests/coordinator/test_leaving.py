"""Clients that are gone, at every stage of a request and over every door: nothing of it stays."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from coordinator.config import MediaLimits
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc
from tests.coordinator.conftest import Bench, MakeBench, ask_for, picture
from tests.coordinator.media.conftest import WebServer, later, page, web
from tests.coordinator.oip.conftest import infer_request, stub_of

__all__ = ["web"]

Leave = Callable[[], Any]
Enter = Callable[[Bench, str], Awaitable[Leave]]


async def by_grpc(bench: Bench, image: str) -> Leave:
    images = (pb.ImagePart(url=image),) if image else ()
    call = bench.inference.Generate(ask_for(max_tokens=50, images=images))
    return _reading(call)


async def by_open_inference(bench: Bench, image: str) -> Leave:
    return _reading(stub_of(bench).ModelStreamInfer(_sent(_inference(image, stream=True))))


async def by_one_inference(bench: Bench, image: str) -> Leave:
    call = stub_of(bench).ModelInfer(_inference(image))
    return call.cancel


async def by_http(bench: Bench, image: str) -> Leave:
    content = [{"type": "image_url", "image_url": {"url": image}}] if image else "x"
    body = {"messages": [{"role": "user", "content": content}], "stream": True, "max_tokens": 50}
    return await _post(bench, json.dumps(body).encode())


DOORS = {"grpc": by_grpc, "oip": by_open_inference, "oip unary": by_one_inference, "http": by_http}
PICTURE = f"data:image/png;base64,{b64encode(picture()).decode()}"


def _reading(call: Any) -> Leave:
    async def read() -> None:
        async for _ in call:
            pass

    reading = asyncio.create_task(read())

    async def leave() -> None:
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    return leave


def _inference(image: str, **parameters: object) -> Any:
    images = [image.encode()] if image else []
    return infer_request(images=images, max_tokens=50, **parameters)


async def _sent(request: Any) -> AsyncIterator[Any]:
    """And no half-close after it: the client might have more to ask."""
    yield request
    await asyncio.Event().wait()


async def _post(bench: Bench, body: bytes, length: int | None = None) -> Leave:
    host, port = bench.http_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    size = len(body) if length is None else length
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {size}\r\n\r\n".encode()
        + body
    )
    await writer.drain()

    def leave() -> None:
        assert not reader.at_eof()
        writer.transport.abort()

    return leave


async def assert_left(bench: Bench, leave: Leave) -> None:
    """Once the client has gone, before anything else goes on."""
    if asyncio.iscoroutine(gone := leave()):
        await gone
    await bench.until(lambda: not bench.num_requests and not bench.coordinator.door.num_open)
    assert bench.gateway is not None
    store = bench.gateway.store
    await bench.until(lambda: not store.num_leases)
    bench.coordinator.dispatcher.check_integrity()


@pytest.fixture
async def open_bench(make_bench: MakeBench) -> Bench:
    media = MediaLimits(allow_private_urls=True, url_timeout_s=60)
    return await make_bench("e", "p", "d", gateway=True, http_port=0, media=media)


every_door = pytest.mark.parametrize("enter", DOORS.values(), ids=list(DOORS))


@every_door
async def test_while_media_are_fetched(open_bench: Bench, web: WebServer, enter: Enter) -> None:
    arrived = asyncio.Event()
    web.pages["/slow"] = later(arrived, page(picture()))
    leave = await enter(open_bench, web.url("/slow"))
    await open_bench.until(lambda: web.requests)
    await assert_left(open_bench, leave)
    arrived.set()
    assert not any(stage.commands for stage in open_bench.stages)
    await open_bench.assert_idle()


@every_door
async def test_while_queued(make_bench: MakeBench, enter: Enter) -> None:
    bench = await make_bench(gateway=True, http_port=0)
    (stage,) = await bench.add("epd", blocks=8)
    stage.pause_at = 1
    before = bench.inference.Generate(ask_for(max_tokens=100))
    await bench.until(lambda: bench.coordinator.dispatcher.num_running == 1)
    leave = await enter(bench, "")
    await bench.until(lambda: bench.coordinator.dispatcher.num_waiting == 1)
    if asyncio.iscoroutine(gone := leave()):
        await gone
    await bench.until(lambda: bench.coordinator.dispatcher.num_waiting == 0)
    assert stage.kinds().count("prefill") == 1
    stage.resume()
    assert [event async for event in before][-1].HasField("finished")
    await bench.assert_idle()


@every_door
async def test_while_encoding(open_bench: Bench, enter: Enter) -> None:
    encoder = open_bench.stages[0]
    encoder.hold_encode.clear()
    leave = await enter(open_bench, PICTURE)
    await open_bench.until(lambda: "encode" in encoder.kinds() and encoder.jobs)
    await assert_left(open_bench, leave)
    encoder.hold_encode.set()
    await open_bench.assert_idle()


@every_door
async def test_while_prefilling(open_bench: Bench, enter: Enter) -> None:
    prefill = open_bench.stages[1]
    prefill.hold_first.clear()
    leave = await enter(open_bench, "")
    await open_bench.until(lambda: prefill.jobs)
    await assert_left(open_bench, leave)
    prefill.hold_first.set()
    await open_bench.assert_idle()


@every_door
async def test_while_streaming(open_bench: Bench, enter: Enter) -> None:
    decode = open_bench.stages[2]
    decode.pause_at = 5
    leave = await enter(open_bench, PICTURE)
    await open_bench.until(lambda: 5 in decode.made.values())
    await assert_left(open_bench, leave)
    decode.resume()
    await open_bench.assert_idle()


async def test_while_uploading(open_bench: Bench) -> None:
    assert open_bench.gateway is not None

    async def half() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(data=picture()[:50])
        await asyncio.Event().wait()

    store = open_bench.gateway.store
    async with grpc.aio.insecure_channel(f"127.0.0.1:{open_bench.gateway.port}") as channel:
        call = inference_pb2_grpc.MediaStub(channel).Upload(half())
        await open_bench.until(lambda: store.num_bytes == 50)
        call.cancel()
        await open_bench.until(lambda: store.num_bytes == 0)
    await open_bench.assert_idle()


async def test_while_a_body_is_sent(open_bench: Bench) -> None:
    leave = await _post(open_bench, b'{"messages": [', 500)
    leave()
    await open_bench.assert_idle()
