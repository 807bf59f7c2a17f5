"""Makes media items ready for requests, wherever their bytes come from."""

from __future__ import annotations

import asyncio

from coordinator.calls import ImageSource
from coordinator.config import MediaLimits
from coordinator.errors import InvalidFieldError
from coordinator.media.fetch import UrlFetcher, decode_data_url, is_data_url
from coordinator.media.flights import Flights
from coordinator.media.intake import Intake, in_pieces
from coordinator.media.store import MediaStore, StoredItem


class Resolver:
    def __init__(self, store: MediaStore, intake: Intake, fetcher: UrlFetcher, limits: MediaLimits) -> None:
        self._store = store
        self._intake = intake
        self._limits = limits
        self._flights = Flights(store, intake, fetcher.open)

    async def resolve(self, request_id: str, tenant: str, source: ImageSource) -> StoredItem:
        """The item, leased to the request. Raises a FieldError naming "digest", "data" or "url", or
        OverloadedError.
        """
        try:
            return await self._make_ready(request_id, tenant, source)
        except asyncio.CancelledError:
            self._store.release(request_id)
            raise

    @property
    def num_waiting(self) -> int:
        """Items that wait for a fetch."""
        return self._flights.num_waiting

    async def close(self) -> None:
        await self._flights.close()

    async def _make_ready(self, request_id: str, tenant: str, source: ImageSource) -> StoredItem:
        if source.url is not None and not is_data_url(source.url):
            return await self._flights.join(request_id, tenant, source.url)
        if source.url is not None:
            data = decode_data_url(source.url, self._limits.media_bytes)
            item = await self._intake.take(in_pieces(data), "url", tenant)
        elif source.data is not None:
            item = await self._intake.take(in_pieces(source.data), "data", tenant)
        elif source.digest is not None:
            item = self._store.get(tenant, source.digest)
            if not item.leases:
                self._store.check_use(tenant, item.size_bytes)
        else:
            raise InvalidFieldError("source", "is not set")
        self._store.lease(item, request_id)
        return item
