"""A link that can be cut: 127.0.0.2 is the far end of a wire to the same ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from kv_transfer.sender import PeerAddress

NEAR, FAR = "127.0.0.1", "127.0.0.2"
_PORT = re.compile(rb'"port": (\d+)')
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Change = Callable[[bytes], bytes]


@dataclass(eq=False)
class Wire:
    """One connection. Once it is `is_cut`, bytes of either side get lost, and neither learns of it."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    is_cut: bool = False


class Link:
    """Forwards bytes of the ports that it was told of, each way, changed by `change`."""

    def __init__(self) -> None:
        self.is_cut = False
        self.num_lost_bytes = 0
        self.change: Change = bytes
        self._servers: dict[int, asyncio.Server] = {}
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reach(self, address: PeerAddress) -> PeerAddress:
        """The peer, at the other end of this link."""
        port = int(address.endpoint.rpartition(":")[2])
        await self.forward(port)
        return replace(address, endpoint=f"{FAR}:{port}")

    async def forward(self, port: int) -> None:
        if port not in self._servers:
            self._servers[port] = await asyncio.start_server(self._connected, FAR, port)

    def cut(self) -> None:
        """All that is on its way, and all that comes, is lost without a word."""
        self.is_cut = True
        for wire in self._wires:
            wire.is_cut = True

    def mend(self) -> None:
        """For new connections: those that were cut stay so."""
        self.is_cut = False

    def reset(self) -> None:
        """Both ends of all connections learn that they are over."""
        for wire in list(self._wires):
            for writer in wire.writers:
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
                writer.transport.abort()

    async def close(self) -> None:
        self.reset()
        for server in self._servers.values():
            server.close()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        there, back = await asyncio.open_connection(NEAR, port)
        wire = Wire((writer, back), self.is_cut)
        self._wires.add(wire)
        ways = [self._carry(wire, reader, back), self._carry(wire, there, writer)]
        task = asyncio.ensure_future(self._serve(wire, ways))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire, ways: list[asyncio.Future[None]]) -> None:
        await asyncio.gather(*ways)
        for writer in wire.writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in wire.writers), return_exceptions=True)
        self._wires.discard(wire)

    async def _carry(self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._open_announced(data)
                if wire.is_cut:
                    self.num_lost_bytes += len(data)
                    continue
                writer.write(self.change(data))
                await writer.drain()
        except OSError:
            pass
        finally:
            if not wire.is_cut:
                writer.close()

    async def _open_announced(self, data: bytes) -> None:
        """Pairs and their stores listen on ports of their own, which grants and greetings name."""
        for port in _PORT.findall(data):
            await self.forward(int(port))
