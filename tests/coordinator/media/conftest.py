"""A small web server on loopback that says what it is told to say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.coordinator.conftest import picture

Page = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    port: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # "HOST PATH" as asked for

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Who leaves before the end, or without a word, is no error."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            host = next(line for line in head.splitlines() if line.lower().startswith("host:")).split()[1]
            self.requests.append(f"{host} {path}")
            await self.pages[path](writer)
            await writer.drain()


def page(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = None) -> Page:
    size = len(body) if length is None else length
    head = "\r\n".join(
        (f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *headers, "", "")
    )

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return write


def redirect(location: str) -> Page:
    return page(b"", f"Location: {location}", status="302 Found")


def later(event: asyncio.Event, then: Page) -> Page:
    """Another page, once the event is set."""

    async def write(writer: asyncio.StreamWriter) -> None:
        await event.wait()
        await then(writer)

    return write


async def hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    site = WebServer()
    site.pages = {
        "/picture": page(picture()),
        "/text": page(b"hello"),
        "/missing": page(b"", status="404 Not Found"),
        "/hang": hang,
        "/endless": endless,
        "/declared": page(b"x", length=10**9),
        "/gzip": page(picture(), "Content-Encoding: gzip"),
    }
    opened: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened[asyncio.create_task(site.serve(reader, writer))] = writer

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    for task, writer in opened.items():
        task.cancel()
        writer.transport.abort()  # a task that never began closes nothing, and not all that was sent is read
    await asyncio.gather(*opened, return_exceptions=True)
    await asyncio.gather(*(writer.wait_closed() for writer in opened.values()), return_exceptions=True)
