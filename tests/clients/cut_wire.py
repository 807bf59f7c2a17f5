"""A TCP connection between client and server that breaks when it is told to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType


class CutWire:
    """Forwards to `port` of this host; `async with`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_connections = 0
        self.is_open = True  # else connections are broken as soon as they are made
        self.swallows = False  # nothing that the client sends arrives
        self.num_swallowed = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Breaks every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        if not self.is_open:
            writer.transport.abort()
            return
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, other_writer}
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink, is_upward=source is reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_upward: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                if is_upward and self.swallows:
                    self.num_swallowed += len(data)
                    continue
                sink.write(data)
                await sink.drain()
        sink.transport.abort()

    async def __aenter__(self) -> CutWire:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
