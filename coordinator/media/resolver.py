"""Makes media items ready for requests; equal URLs at the same time are fetched once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coordinator.calls import ImageSource
from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.fetch import UrlFetcher, decode_data_url, is_data_url
from coordinator.media.intake import Intake, in_pieces
from coordinator.media.store import MediaStore, StoredItem


@dataclass(slots=True, eq=False)
class _Flight:
    """A fetch under way, and the requests that wait for it."""

    task: asyncio.Task[StoredItem]
    request_ids: set[str] = field(default_factory=set)


class Resolver:
    def __init__(self, store: MediaStore, intake: Intake, fetcher: UrlFetcher, limits: MediaLimits) -> None:
        self._store = store
        self._intake = intake
        self._fetcher = fetcher
        self._limits = limits
        self._flights: dict[str, _Flight] = {}

    async def resolve(self, request_id: str, source: ImageSource) -> StoredItem:
        """The item, leased to the request. Raises a FieldError naming "digest", "data" or "url"."""
        try:
            return await self._make_ready(request_id, source)
        except asyncio.CancelledError:
            self._store.release(request_id)
            raise

    async def _make_ready(self, request_id: str, source: ImageSource) -> StoredItem:
        if source.url is not None and not is_data_url(source.url):
            return await self._join_flight(request_id, source.url)
        if source.url is not None:
            item = await self._take_data(decode_data_url(source.url, self._limits.media_bytes), "url")
        elif source.data is not None:
            item = await self._take_data(source.data, "data")
        elif source.digest is not None:
            item = self._store.get(source.digest)
        else:
            raise InvalidFieldError("source", "is not set")
        self._store.lease(item, request_id)
        return item

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a fetch."""
        return sum(len(flight.request_ids) for flight in self._flights.values())

    async def close(self) -> None:
        for flight in list(self._flights.values()):
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights.values()), return_exceptions=True)

    async def _take_data(self, data: bytes, name: str) -> StoredItem:
        return await self._intake.take(in_pieces(data), name)

    async def _join_flight(self, request_id: str, url: str) -> StoredItem:
        flight = self._flights.get(url)
        if flight is None:
            flight = self._flights[url] = _Flight(asyncio.create_task(self._fetch(url)))
        flight.request_ids.add(request_id)
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            flight.request_ids.discard(request_id)
            if not flight.request_ids:
                flight.task.cancel()
            raise

    async def _fetch(self, url: str) -> StoredItem:
        """Leases to all that wait at the moment the item is there, before anything can evict it."""
        try:
            async with self._fetcher.open(url) as pieces:
                item = await self._intake.take(pieces, "url")
                for request_id in self._flights[url].request_ids:
                    self._store.lease(item, request_id)
            return item
        finally:
            del self._flights[url]
