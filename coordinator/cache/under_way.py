"""Embeddings that are being made: who was told to encode an item is about to have it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Order:
    """One item that one instance was told to encode."""

    key: bytes
    instance_id: str


class EmbeddingsUnderWay:
    """From the command on, until the item's request ends or the instance is lost; one that is done still
    counts until the instance's next heartbeat, when its cache has said that it keeps it.
    """

    def __init__(self) -> None:
        self.version = 0  # goes up with every change
        self._holders: dict[bytes, Counter[str]] = {}
        self._orders: dict[str, dict[int, _Order]] = {}  # by request and item, those not done
        self._done: dict[str, list[_Order]] = {}  # by instance

    def begin(self, request_id: str, item_index: int, key: bytes, instance_id: str) -> None:
        """Also replaces what was ordered of this item before."""
        self._take(request_id, item_index)
        order = _Order(key, instance_id)
        self._orders.setdefault(request_id, {})[item_index] = order
        self._holders.setdefault(key, Counter())[instance_id] += 1
        self.version += 1

    def done(self, request_id: str, item_index: int) -> None:
        """Nothing where it was not begun, or its instance is gone."""
        orders = self._orders.get(request_id, {})
        order = orders.pop(item_index, None)
        if order is not None:
            self._done.setdefault(order.instance_id, []).append(order)
        if not orders:
            self._orders.pop(request_id, None)

    def end(self, request_id: str) -> None:
        """The request waits for none of it any more, and whoever still encodes for it was told to stop."""
        for order in self._orders.pop(request_id, {}).values():
            self._drop(order)

    def forgo(self, request_id: str, instance_id: str) -> None:
        """The request does not wait for what the instance makes of it; that may come to nothing."""
        for index, order in tuple(self._orders.get(request_id, {}).items()):
            if order.instance_id == instance_id:
                self._take(request_id, index)

    def settle(self, instance_id: str) -> None:
        """The instance has reported what it keeps of all that is done."""
        for order in self._done.pop(instance_id, ()):
            self._drop(order)

    def lose(self, instance_id: str) -> None:
        self.settle(instance_id)
        for request_id in tuple(self._orders):
            self.forgo(request_id, instance_id)

    def holders(self, key: bytes) -> tuple[str, ...]:
        return tuple(self._holders.get(key, ()))

    def check_idle(self) -> None:
        """Raises AssertionError if anything is under way for a request, or the counts are not those of the
        orders; for when there are no requests.
        """
        assert not self._orders, f"encodes of {sorted(self._orders)} are under way"
        done = [order for orders in self._done.values() for order in orders]
        counts = Counter((order.key, order.instance_id) for order in done)
        held = {(key, name): n for key, names in self._holders.items() for name, n in names.items()}
        assert held == counts, "holders of embeddings that nobody encoded"

    def _take(self, request_id: str, item_index: int) -> None:
        orders = self._orders.get(request_id, {})
        order = orders.pop(item_index, None)
        if order is not None:
            self._drop(order)
        if not orders:
            self._orders.pop(request_id, None)

    def _drop(self, order: _Order) -> None:
        holders = self._holders[order.key]
        holders[order.instance_id] -= 1
        if not holders[order.instance_id]:
            del holders[order.instance_id]
        if not holders:
            del self._holders[order.key]
        self.version += 1
