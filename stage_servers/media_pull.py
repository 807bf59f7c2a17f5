"""Fetches a media item's bytes from the gateway that keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc

from core.access import token_metadata
from core.ids import host_id
from core.tls import Dialer, TlsFiles
from elasticmm.v1 import media_store_pb2, media_store_pb2_grpc


class MediaGoneError(RuntimeError):
    """The gateway no longer has the item."""


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Where an item's bytes are, as the coordinator says."""

    digest: bytes
    size_bytes: int
    endpoint: str  # HOST:PORT of the gateway
    segment: str  # path of a file in shared memory, readable on host_id; may be empty
    host_id: str
    num_pixels: int = 0  # as shown; 0: not known


class MediaPuller:
    """Reads the shared segment on the gateway's own host, and streams the bytes elsewhere."""

    def __init__(self, token: str, tls: TlsFiles | None = None) -> None:
        self._dialer = Dialer(tls)
        self._metadata = token_metadata(token)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def pull(self, source: MediaSource) -> bytes:
        """The item's bytes; raises MediaGoneError."""
        if source.segment and source.host_id == host_id():
            data = await asyncio.to_thread(_read_segment, source)
            if data is not None:
                return data
        return await self._stream(source)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _stream(self, source: MediaSource) -> bytes:
        stub = media_store_pb2_grpc.MediaStoreStub(self._channel(source.endpoint))
        request = media_store_pb2.PullRequest(digest=source.digest)
        try:
            parts = [reply.data async for reply in stub.Pull(request, metadata=self._metadata)]
        except grpc.aio.AioRpcError as error:
            raise MediaGoneError(
                f"the media gateway answers {error.code().name}: {error.details()}"
            ) from error
        return b"".join(parts)

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        if endpoint not in self._channels:
            self._channels[endpoint] = self._dialer.open(endpoint)
        return self._channels[endpoint]


def _read_segment(source: MediaSource) -> bytes | None:
    """None if the file is gone or not the promised one, so that the stream is tried."""
    try:
        data = Path(source.segment).read_bytes()
    except OSError:
        return None
    return data if len(data) == source.size_bytes else None
