"""One tier's memory: how much of it each tenant has, and whose entry goes when it is short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from core.cache.entry import Entry
from core.cache.eviction import EvictionOrder
from core.cache.shares import Shares


class TierMemory:
    """Counts bytes of all entries of the tier, and orders those that may go by tenant."""

    def __init__(self, shares: Shares, make_order: Callable[[], EvictionOrder]) -> None:
        self.capacity_bytes = shares.capacity_bytes
        self.bytes_of: Counter[str] = Counter()  # by tenant
        self.used_bytes = 0
        self._held_bytes = 0  # of entries that somebody uses
        self._shares = shares
        self._make_order = make_order
        self._orders: dict[str, EvictionOrder] = {}

    @property
    def num_evictable(self) -> int:
        return sum(map(len, self._orders.values()))

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of the tier, 0 to 1. Raises ValueError if they are more than there is."""
        named = {tenant: int(part * self.capacity_bytes) for tenant, part in parts.items()}
        self._shares = Shares(self.capacity_bytes, named)

    @property
    def unused_bytes(self) -> int:
        """Of entries that nobody uses."""
        return self.used_bytes - self._held_bytes

    def hold(self, entry: Entry) -> None:
        self.used_bytes += entry.size_bytes
        self._held_bytes += entry.size_bytes if entry.refs else 0
        self.bytes_of[entry.tenant] += entry.size_bytes

    def let_go(self, entry: Entry) -> None:
        self.discard(entry)
        self.used_bytes -= entry.size_bytes
        self._held_bytes -= entry.size_bytes if entry.refs else 0
        self.bytes_of[entry.tenant] -= entry.size_bytes
        if not self.bytes_of[entry.tenant]:
            del self.bytes_of[entry.tenant]
            self._orders.pop(entry.tenant, None)

    def begin_use(self, entry: Entry) -> None:
        """By its first user."""
        self.discard(entry)
        self._held_bytes += entry.size_bytes

    def end_use(self, entry: Entry) -> None:
        """By its last user."""
        self._held_bytes -= entry.size_bytes

    def may_go(self, entry: Entry, now_s: float) -> None:
        if entry.tenant not in self._orders:
            self._orders[entry.tenant] = self._make_order()
        self._orders[entry.tenant].add(entry, now_s)

    def discard(self, entry: Entry) -> None:
        if entry.tenant in self._orders:
            self._orders[entry.tenant].discard(entry)

    def victim(self, tenant: str, wanted_bytes: int, now_s: float, *, is_urgent: bool) -> Entry | None:
        """Who goes so that the tenant gets so many bytes more: an entry of its own where it would be over its
        share, else of the tenant that is most over its own. Where nobody is over, one of its own, or, if it
        is urgent, of whoever is least under.
        """
        if tenant in self._orders and len(self.bytes_of) == 1:
            return self._orders[tenant].least(now_s)  # who is alone has no share to keep
        over = self._over_bytes(tenant, wanted_bytes)
        if over.get(tenant, 0) > 0:
            return self._orders[tenant].least(now_s)
        most = max(over, key=lambda each: over[each], default=None)
        if most is not None and over[most] <= 0 and not is_urgent:
            most = tenant if tenant in over else None
        return None if most is None else self._orders[most].least(now_s)

    def _over_bytes(self, tenant: str, wanted_bytes: int) -> dict[str, int]:
        """By tenant that has something to give: bytes it has over its share, under it if negative."""
        present = self.bytes_of.keys() | {tenant}
        return {
            each: self.bytes_of[each]
            + (wanted_bytes if each == tenant else 0)
            - self._shares.own_bytes(each, present)
            for each, order in self._orders.items()
            if len(order)
        }
