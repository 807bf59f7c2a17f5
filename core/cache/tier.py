"""One tier's memory: how much of it each tenant has, and whose entry goes when it is short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from core.cache.entry import Entry
from core.cache.eviction import EvictionOrder
from core.cache.fullest import Fullest
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
        self._num_unnamed = 0  # tenants without a share of their own that have something
        self._fullest = Fullest(self.bytes_of, self._is_unnamed_giver)

    @property
    def num_evictable(self) -> int:
        return sum(map(len, self._orders.values()))

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of the tier, 0 to 1. Raises ValueError if they are more than there is."""
        named = {tenant: int(part * self.capacity_bytes) for tenant, part in parts.items()}
        self._shares = Shares(self.capacity_bytes, named)
        self._num_unnamed = sum(tenant not in named for tenant in self.bytes_of)
        self._fullest.note_all()

    @property
    def unused_bytes(self) -> int:
        """Of entries that nobody uses."""
        return self.used_bytes - self._held_bytes

    def hold(self, entry: Entry) -> None:
        self.used_bytes += entry.size_bytes
        self._held_bytes += entry.size_bytes if entry.refs else 0
        if entry.tenant not in self.bytes_of and entry.tenant not in self._shares.named_bytes:
            self._num_unnamed += 1
        self.bytes_of[entry.tenant] += entry.size_bytes
        self._fullest.note(entry.tenant)

    def let_go(self, entry: Entry) -> None:
        self.discard(entry)
        self.used_bytes -= entry.size_bytes
        self._held_bytes -= entry.size_bytes if entry.refs else 0
        self.bytes_of[entry.tenant] -= entry.size_bytes
        self._fullest.note(entry.tenant)
        if not self.bytes_of[entry.tenant]:
            del self.bytes_of[entry.tenant]
            self._num_unnamed -= entry.tenant not in self._shares.named_bytes
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
        order = self._orders[entry.tenant]
        if not len(order):
            self._fullest.note(entry.tenant)
        order.add(entry, now_s)

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
        own_over = self._over_bytes(tenant, tenant) + wanted_bytes
        if self._is_giver(tenant) and own_over > 0:
            return self._orders[tenant].least(now_s)
        over = {each: self._over_bytes(each, tenant) for each in self._givers()}
        if self._is_giver(tenant):
            over[tenant] = own_over
        most = max(over, key=over.__getitem__, default=None)
        if most is not None and over[most] <= 0 and not is_urgent:
            most = tenant if tenant in over else None
        return None if most is None else self._orders[most].least(now_s)

    def _givers(self) -> Iterator[str]:
        """Tenants that have something to give: those with a share of their own, and of the others, whose
        shares are equal, the one that has most.
        """
        yield from filter(self._is_giver, self._shares.named_bytes)
        fullest = self._fullest.tenant()
        if fullest is not None:
            yield fullest

    def _is_giver(self, tenant: str) -> bool:
        return bool(self._orders.get(tenant))

    def _is_unnamed_giver(self, tenant: str) -> bool:
        return tenant not in self._shares.named_bytes and self._is_giver(tenant)

    def _over_bytes(self, tenant: str, asker: str) -> int:
        """That it has over its share, under it if negative, where the asker counts as present."""
        own = self._shares.named_bytes.get(tenant)
        if own is None:
            is_new = asker not in self.bytes_of and asker not in self._shares.named_bytes
            own = self._shares.equal_bytes(self._num_unnamed + is_new)
        return self.bytes_of[tenant] - own
