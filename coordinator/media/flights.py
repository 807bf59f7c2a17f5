"""Fetches under way: one per tenant and URL, for all of the tenant's requests that want it meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from coordinator.media.intake import Intake
from coordinator.media.store import MediaStore, StoredItem

Open = Callable[[str], AbstractAsyncContextManager[AsyncIterator[bytes]]]
Key = tuple[str, str]  # tenant, URL


class _Flight:
    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()  # by request; one may want the same picture twice
        self.task: asyncio.Task[StoredItem] | None = None


class Flights:
    """`open_url` gives a URL's content in pieces. Another tenant's request fetches for itself, so that nobody
    learns from how long it takes what others ask for.
    """

    def __init__(self, store: MediaStore, intake: Intake, open_url: Open) -> None:
        self._store = store
        self._intake = intake
        self._open_url = open_url
        self._flights: dict[Key, _Flight] = {}  # that can be joined
        self._tasks: set[asyncio.Task[StoredItem]] = set()

    @property
    def num_waiting(self) -> int:
        """Wishes that wait for a fetch."""
        return sum(flight.waiting.total() for flight in self._flights.values())

    async def join(self, request_id: str, tenant: str, url: str) -> StoredItem:
        """The item, leased to the request. A failure is that of all who wait; who is cancelled leaves the
        others to wait, and the last one ends the fetch.
        """
        key = tenant, url
        flight = self._flights.get(key) or self._start(key)
        assert flight.task is not None
        flight.waiting[request_id] += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            flight.waiting[request_id] -= 1
            if not flight.waiting.total():
                self._land(key, flight)
                flight.task.cancel()
            raise

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: Key) -> _Flight:
        flight = self._flights[key] = _Flight()
        flight.task = asyncio.create_task(self._fetch(key, flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    async def _fetch(self, key: Key, flight: _Flight) -> StoredItem:
        """Leases to all that wait at the moment the item is there, before anything can evict it; whoever
        comes later has to fetch anew.
        """
        tenant, url = key
        try:
            async with self._open_url(url) as pieces:
                item = await self._intake.take(pieces, "url", tenant)
                self._land(key, flight)
                for request_id, num_wishes in flight.waiting.items():
                    if num_wishes:
                        self._store.lease(item, request_id)
            return item
        finally:
            self._land(key, flight)

    def _land(self, key: Key, flight: _Flight) -> None:
        """Nobody joins it any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]
