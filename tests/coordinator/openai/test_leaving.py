"""Clients that go away or do not read, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.coordinator.conftest import until
from tests.coordinator.openai.conftest import CHAT, HttpBench, MakeHttp
from tests.coordinator.openai.scripted import MESSAGES, Script

HEADERS = "host: localhost\r\ncontent-type: application/json\r\n"


async def send(door: HttpBench, **fields: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One call, by hand."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]} | fields).encode()
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_ends_its_requests(door: HttpBench, *, stream: bool) -> None:
    decode = door.bench.stages[2]
    decode.pause_at = 3
    reader, writer = await send(door, stream=stream, n=2, max_tokens=20)
    if stream:
        await reader.readuntil(b"data: ")
    await until(lambda: len(decode.jobs) == 2)
    writer.transport.abort()
    await until(lambda: not door.bench.num_requests)
    decode.resume()
    await door.bench.assert_idle()


async def test_a_client_that_waits_in_vain_does_not_keep_the_server(door: HttpBench) -> None:
    """The coordinator stops while a stream is open: it ends with an error, and no [DONE]."""
    door.bench.stages[2].pause_at = 3
    reader, writer = await send(door, stream=True, max_tokens=20)
    await reader.readuntil(b"data: ")
    await until(lambda: door.bench.stages[2].jobs)
    await door.bench.coordinator.stop()
    rest = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert b"service_unavailable_error" in rest
    assert b"[DONE]" not in rest
    writer.close()


async def test_a_client_that_reads_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """What it would have read stays with the door, and ends with its call."""
    script = Script(texts=["x"] * 100, stalled_s=0.05)
    body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
    sent = []

    async def receive() -> dict[str, object]:
        nonlocal body
        if not body:
            await asyncio.Event().wait()
        message, body = {"type": "http.request", "body": body}, b""
        return message

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "query_string": b""}
    await script.app()(scope, receive, send)
    assert len(sent) == 3
    assert script.num_cancelled == 1
    assert "nothing was read for 0.05 s" in caplog.text


async def test_half_a_body_is_not_waited_for(make_http: MakeHttp) -> None:
    door = await make_http("epd", stalled_reader_s=0.1)
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f'POST /v1/completions HTTP/1.1\r\n{HEADERS}content-length: 99\r\n\r\n{{"pro'.encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()
