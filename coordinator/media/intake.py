"""From bytes arriving in pieces to a checked item in the store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.picture import inspect_picture
from coordinator.media.segments import SegmentFolder
from coordinator.media.store import MediaStore, StoredItem

_PIECE_BYTES = 1 << 20
_MAX_INSPECTIONS = 2


@dataclass(frozen=True, slots=True)
class _Received:
    digest: bytes
    size_bytes: int


class Intake:
    def __init__(self, store: MediaStore, segments: SegmentFolder, limits: MediaLimits) -> None:
        self._store = store
        self._segments = segments
        self._limits = limits
        # Few at a time: a picture at the pixel limit takes hundreds of megabytes while it is checked.
        self._workers = ThreadPoolExecutor(_MAX_INSPECTIONS, "inspect")

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)

    async def take(self, pieces: AsyncIterator[bytes], field: str, tenant: str) -> StoredItem:
        """An item that the tenant has brought.

        Raises InvalidFieldError(field), or OverloadedError; leaves no file behind then.
        """
        path, file = self._segments.create()
        reserved = [0]
        try:
            with file:
                received = await self._receive(pieces, file, field, tenant, reserved)
            header = await asyncio.get_running_loop().run_in_executor(
                self._workers, inspect_picture, path, self._limits.media_pixels, field
            )
            return self._store.add(tenant, received.digest, received.size_bytes, header, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._store.unreserve(tenant, reserved[0])

    async def _receive(
        self, pieces: AsyncIterator[bytes], file: BinaryIO, field: str, tenant: str, reserved: list[int]
    ) -> _Received:
        digest = hashlib.sha256()
        async for piece in pieces:
            if reserved[0] + len(piece) > self._limits.media_bytes:
                raise InvalidFieldError(
                    field, f"is larger than the limit of {self._limits.media_bytes} bytes"
                )
            self._store.reserve(tenant, len(piece))
            reserved[0] += len(piece)
            digest.update(piece)
            file.write(piece)
        if not reserved[0]:
            raise InvalidFieldError(field, "is empty")
        return _Received(digest.digest(), reserved[0])


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """Bytes that are here already, without holding the event loop for all of them."""
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)


async def of_file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
