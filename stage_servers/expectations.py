"""Which requests this instance was told of, so that what peers push can wait for the command."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from kv_transfer.errors import UnknownRequest
from stage_servers.reports import Key

_REMEMBERED = 4096


class Expectations:
    """Known keys of one kind (sequences to prefill, or to decode).

    A peer's push and the coordinator's command race each other; the push
    waits here. Keys that ended are remembered for a while, so that a late
    push is refused at once.
    """

    def __init__(self) -> None:
        self._known: dict[Key, asyncio.Event] = {}
        self._ended: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return sum(event.is_set() for event in self._known.values())

    def __contains__(self, key: Key) -> bool:
        event = self._known.get(key)
        return event is not None and event.is_set()

    def add(self, key: Key) -> None:
        self._known.setdefault(key, asyncio.Event()).set()

    def end(self, key: Key) -> None:
        """Forgets the key; whoever waits for it is refused. Unknown keys are no error."""
        event = self._known.pop(key, None)
        if event is not None:
            event.set()
        self._ended[key] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    async def wait(self, key: Key) -> None:
        """Returns once the key is known; raises UnknownRequest if it ended. The caller bounds the time."""
        if key in self._ended:
            raise UnknownRequest(f"request {key[0]} (dispatch {key[1]}) has ended here")
        event = self._known.setdefault(key, asyncio.Event())
        try:
            await event.wait()
        finally:
            if not event.is_set() and self._known.get(key) is event:
                del self._known[key]
        if key not in self:
            raise UnknownRequest(f"request {key[0]} (dispatch {key[1]}) has ended here")
