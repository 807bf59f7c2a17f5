"""Clients that are slow, endless or no HTTP at all, over real sockets; others are served all the while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.coordinator.openai.conftest import HttpBench, MakeHttp

POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BOUND_S = 60


@pytest.fixture
async def impatient(make_http: MakeHttp) -> HttpBench:
    return await make_http("epd", stalled_reader_s=0.3)


@asynccontextmanager
async def connection(door: HttpBench) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(BOUND_S):
            yield reader, writer
    finally:
        writer.close()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """To the end, however the server ends it."""
    data = b""
    try:
        while piece := await reader.read(65536):
            data += piece
    except ConnectionError:
        pass
    return data


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """For ever, until the server has enough of it."""
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(0.02)


async def answer_to_a_trickle(door: HttpBench, begin: bytes, piece: bytes) -> bytes:
    async with connection(door) as (reader, writer):
        writer.write(begin)
        trickling = asyncio.create_task(trickle(writer, piece))
        answer = await all_of(reader)
        trickling.cancel()
    return answer


@pytest.mark.parametrize("begin", [b"", b"G", POST, POST + b"x-slow: "])
async def test_a_head_that_does_not_end(impatient: HttpBench, begin: bytes) -> None:
    async with connection(impatient) as (reader, writer):
        writer.write(begin)
        assert (await all_of(reader)).startswith(b"HTTP/1.1 408 ")
    await impatient.bench.assert_idle()


async def test_a_head_that_comes_letter_by_letter(impatient: HttpBench) -> None:
    answer = await answer_to_a_trickle(impatient, POST, b"x: y\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the request's head did not come within 0.3 s" in answer


async def test_a_body_that_comes_letter_by_letter(impatient: HttpBench) -> None:
    """Never a whole 0.3 s without a byte."""
    answer = await answer_to_a_trickle(impatient, POST + b"content-length: 99999\r\n\r\n", b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body comes too slowly" in answer
    await impatient.bench.assert_idle()


async def test_a_head_without_end_is_bounded(door: HttpBench) -> None:
    async with connection(door) as (reader, writer):
        writer.write(POST)
        answering = asyncio.create_task(all_of(reader))
        while not answering.done():
            writer.write(b"x: " + b"y" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        assert b" 431 " in (await answering)[:13] or not await answering
    await door.bench.assert_idle()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01" * 9,
        b"\xff" * 99,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http(door: HttpBench, garbage: bytes) -> None:
    async with connection(door) as (reader, writer):
        writer.write(garbage)
        writer.write_eof()
        answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "message" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    await door.bench.assert_idle()


async def test_garbage_behind_a_request_leaves_its_answer_alone(door: HttpBench) -> None:
    """Pipelined: the answer is whole, or the connection ends; never garbage in its midst."""
    body = b'{"prompt": "x", "max_tokens": 3, "seed": 1}'
    async with connection(door) as (reader, writer):
        writer.write(POST + b"content-length: %d\r\n\r\n" % len(body) + body + b"\xff\xff\r\n\r\n")
        answer = await all_of(reader)
    assert not answer or answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    assert answer.count(b"HTTP/1.1 ") <= 1
    await door.bench.assert_idle()


async def test_pipelined_requests_are_answered_in_order(door: HttpBench) -> None:
    bodies = [b'{"prompt": "x", "max_tokens": %d, "seed": 1}' % count for count in (1, 0, 2)]
    async with connection(door) as (reader, writer):
        writer.write(b"".join(POST + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies))
        statuses = []
        for _ in bodies:
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(head.split()[1])
            size = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
            await reader.readexactly(int(size.split()[1]))
    assert statuses == [b"200", b"400", b"200"]
    await door.bench.assert_idle()


async def test_half_closed_connections_leave_nothing(door: HttpBench) -> None:
    """Who closes its side behind a request is answered, or gone; either way nothing is held."""
    body = b'{"prompt": "x", "max_tokens": 3, "seed": 1}'
    whole = POST + b"content-length: %d\r\n\r\n" % len(body) + body
    for said in (b"", POST, whole[:-5], whole):
        async with connection(door) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            await all_of(reader)
    await door.bench.assert_idle()
