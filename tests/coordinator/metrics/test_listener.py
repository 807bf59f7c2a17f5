"""What a scraper gets over HTTP, and that nothing it sends holds the listener up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.errors import NotAllowedError, UnauthenticatedError
from coordinator.metrics import listener as listener_file
from coordinator.metrics.listener import Headers, MetricsListener


def render(accept: str) -> tuple[str, bytes]:
    if accept == "trouble":
        raise RuntimeError("cannot")
    return f"text/x; accept={accept}", b"metric 1\n"


def admit(headers: Headers, peer: str) -> None:
    assert peer.startswith("127.0.0.1:")
    if ("authorization", "Bearer other") in headers:
        raise NotAllowedError("authorization", "no")
    if ("authorization", "Bearer wrong") in headers:
        raise UnauthenticatedError("who?")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = MetricsListener(render, admit)
    yield await listener.start("127.0.0.1", 0)
    await listener.stop()


async def send(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if not request.endswith(b"\r\n\r\n"):
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_metrics_in_the_form_that_is_accepted(port: int) -> None:
    answer = await send(port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nACCEPT: a/b\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/x; accept=a/b\r\nContent-Length: 9\r\n")
    assert body == b"metric 1\n"


@pytest.mark.parametrize(
    ("request_", "starts"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /metrics HTTP/1.1\r\nAccept: trouble\r\n\r\n", b"HTTP/1.1 500 "),
        (b"GET /metrics HTTP/1.1\r\nAuthorization: Bearer other\r\n\r\n", b"HTTP/1.1 403 "),
        (b"GET /metrics HTTP/1.1\r\nAUTHORIZATION:Bearer wrong\r\n\r\n", b"HTTP/1.1 401 "),
        (b"\xff\x00\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /metr", b""),
        (b"G" * 20_000, b""),
    ],
)
async def test_all_else_is_refused(port: int, request_: bytes, starts: bytes) -> None:
    answer = await send(port, request_)
    assert answer.startswith(starts)
    assert bool(answer) == bool(starts)


async def test_head_has_no_body(port: int) -> None:
    answer = await send(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_one_too_many_is_told_before_it_asks(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_file, "_MAX_CONNECTIONS", 1)
    first_reader, first = await asyncio.open_connection("127.0.0.1", port)
    reader, second = await asyncio.open_connection("127.0.0.1", port)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    first.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert (await first_reader.read()).startswith(b"HTTP/1.1 200 ")
    for writer in (first, second):
        writer.close()
        await writer.wait_closed()
