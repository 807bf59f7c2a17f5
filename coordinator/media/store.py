"""The media items in keeping: leased to requests, else the least recently used goes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.errors import NotFoundError, OverloadedError
from coordinator.media.picture import PictureHeader
from core.cache.shares import Shares
from core.clock import Clock

_RETRY_AFTER_S = 1.0
# What those who use more than their share leave: of what others have not filled of their named shares, for
# these; of what no tenant is named for, for those who have nothing yet.
_LEFT_TO_NAMED, _LEFT_TO_NEW = 1 / 2, 1 / 8


@dataclass(slots=True, eq=False)
class StoredItem:
    tenant: str  # who brought it
    digest: bytes
    size_bytes: int
    header: PictureHeader
    path: Path
    used_s: float
    leases: set[str] = field(default_factory=set)  # request ids


class MediaStore:
    """Bytes on their way in count as well, so that the bound holds at every moment.

    What two tenants bring is kept twice, even where it is the same: so neither finds out what the other has
    brought, by a digest or by how long an item stays. A tenant's items within its share stay whatever others
    bring. What is leased or on its way cannot be taken back: so who is over its share with that leaves some
    room to others.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Clock) -> None:
        self._shares = Shares(max_bytes)
        self._ttl_s = ttl_s
        self._clock = clock
        self._items: dict[tuple[str, bytes], StoredItem] = {}
        self._idle: dict[str, dict[bytes, StoredItem]] = {}  # without lease; least recently used first
        self._idle_bytes: Counter[str] = Counter()
        self._leased: dict[str, list[StoredItem]] = {}  # by request
        self._tenants: dict[bytes, list[str]] = {}  # who has brought it, by digest
        self._incoming: Counter[str] = Counter()  # bytes, by tenant
        self._bytes_of: Counter[str] = Counter()  # of items and on their way; tenants that have some

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of the store, 0 to 1; the others share what these leave in equal parts.

        Raises ValueError if they are more than there is.
        """
        capacity_bytes = self._shares.capacity_bytes
        named = {tenant: int(part * capacity_bytes) for tenant, part in parts.items()}
        self._shares = Shares(capacity_bytes, named)

    @property
    def num_bytes(self) -> int:
        return self._bytes_of.total()

    @property
    def num_leases(self) -> int:
        return sum(len(item.leases) for item in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def reserve(self, tenant: str, num_bytes: int) -> None:
        """Makes room for bytes that the tenant brings.

        Items without lease go, each time the least recently used one of whoever is most over its share then.
        Raises OverloadedError where only others' within their shares are left, and leased ones, and where the
        tenant would use what is kept for others.
        """
        self.check_use(tenant, num_bytes)
        while self.num_bytes + num_bytes > self._shares.capacity_bytes:
            giver = self._giver(tenant, num_bytes)
            if giver is None:
                raise OverloadedError(
                    "the media store is full of items in use, and of other tenants' shares",
                    _RETRY_AFTER_S,
                    "media.store_bytes",
                )
            self._drop(next(iter(self._idle[giver].values())))
        self._incoming[tenant] += num_bytes
        self._bytes_of[tenant] += num_bytes

    def check_use(self, tenant: str, num_bytes: int) -> None:
        """Raises OverloadedError where the tenant may not use so many bytes more for what it asks for now."""
        present = {*self._bytes_of, tenant, ""}  # as if somebody came
        if self._used_bytes(tenant) + num_bytes <= self._shares.own_bytes(tenant, present):
            return
        used_bytes = self.num_bytes - self._idle_bytes.total()
        if used_bytes + num_bytes + self._owed_bytes(tenant) > self._shares.capacity_bytes:
            raise OverloadedError(
                f"tenant {tenant!r} uses more than its share of the media store, what is left is for others",
                _RETRY_AFTER_S,
                "media.store_bytes",
            )

    def unreserve(self, tenant: str, num_bytes: int) -> None:
        """The bytes are an item now, or did not come."""
        _subtract(self._incoming, tenant, num_bytes)
        _subtract(self._bytes_of, tenant, num_bytes)

    def add(
        self, tenant: str, digest: bytes, size_bytes: int, header: PictureHeader, path: Path
    ) -> StoredItem:
        """Takes the file over; where the tenant's item is here already, the new file goes."""
        present = self._items.get((tenant, digest))
        if present is not None:
            path.unlink(missing_ok=True)
            self._note_use(present)
            return present
        item = StoredItem(tenant, digest, size_bytes, header, path, self._clock.now_s())
        self._items[tenant, digest] = item
        self._tenants.setdefault(digest, []).append(tenant)
        self._bytes_of[tenant] += size_bytes
        self._note_use(item)
        return item

    def get(self, tenant: str, digest: bytes) -> StoredItem:
        """What the tenant has brought. Raises NotFoundError("digest")."""
        item = self._items.get((tenant, digest))
        if item is None:
            raise _not_here(digest)
        return item

    def find(self, digest: bytes) -> StoredItem:
        """Whoever brought it: for parts of the cluster only. Raises NotFoundError("digest")."""
        tenants = self._tenants.get(digest)
        if not tenants:
            raise _not_here(digest)
        return self._items[tenants[0], digest]

    def lease(self, item: StoredItem, request_id: str) -> None:
        if request_id not in item.leases:
            item.leases.add(request_id)
            self._leased.setdefault(request_id, []).append(item)
        self._note_use(item)

    def release(self, request_id: str) -> None:
        """Unknown ones are no error."""
        for item in self._leased.pop(request_id, ()):
            item.leases.remove(request_id)
            self._note_use(item)

    def sweep(self) -> None:
        """Drops items without lease that nobody used for the time to live."""
        oldest_s = self._clock.now_s() - self._ttl_s
        for idle in tuple(self._idle.values()):
            for item in tuple(idle.values()):
                if item.used_s < oldest_s:
                    self._drop(item)

    def check_integrity(self) -> None:
        """Raises AssertionError where the books do not fit the items."""
        owned = Counter(self._incoming)
        for item in self._items.values():
            owned[item.tenant] += item.size_bytes
            is_idle = item.digest in self._idle.get(item.tenant, ())
            assert is_idle is not bool(item.leases), f"{item.digest.hex()}: is idle and leased, or neither"
        assert +owned == self._bytes_of, f"{self._bytes_of} are booked, {owned} are here"
        idle = {
            tenant: sum(each.size_bytes for each in items.values()) for tenant, items in self._idle.items()
        }
        assert idle == self._idle_bytes, f"{self._idle_bytes} are idle in the books, {idle} are"
        num_leased = sum(map(len, self._leased.values()))
        assert num_leased == self.num_leases, f"{num_leased} leases by request, {self.num_leases} by item"
        assert sum(map(len, self._idle.values())) <= len(self._items), "idle: holds what is gone"
        assert self.num_bytes <= self._shares.capacity_bytes, "more is kept than may be"

    def _giver(self, tenant: str, num_bytes: int) -> str | None:
        """Whose item goes so that the tenant gets so many bytes: of those that have one without lease and are
        over their shares then, who is most over; else the tenant itself, or None if it has none either.
        """
        own = self._shares.all_own_bytes(self._bytes_of.keys() | {tenant})
        over = {each: self._bytes_of[each] - own[each] for each in self._idle}
        if tenant in over:
            over[tenant] += num_bytes
        most = max(over, key=over.__getitem__, default=None)
        if most is not None and over[most] > 0:
            return most
        return tenant if tenant in over else None

    def _note_use(self, item: StoredItem) -> None:
        """It is the last to go of its tenant's, or none of those that may go while it is leased."""
        item.used_s = self._clock.now_s()
        self._not_idle(item)
        if not item.leases:
            self._idle.setdefault(item.tenant, {})[item.digest] = item
            self._idle_bytes[item.tenant] += item.size_bytes

    def _not_idle(self, item: StoredItem) -> None:
        idle = self._idle.get(item.tenant, {})
        if idle.pop(item.digest, None) is not None:
            _subtract(self._idle_bytes, item.tenant, item.size_bytes)
        if not idle:
            self._idle.pop(item.tenant, None)

    def _used_bytes(self, tenant: str) -> int:
        """Leased, or on their way."""
        return self._bytes_of[tenant] - self._idle_bytes[tenant]

    def _owed_bytes(self, tenant: str) -> int:
        """That stay free of use by a tenant which is over its share."""
        named = self._shares.named_bytes
        unused = [max(0, own - self._used_bytes(each)) for each, own in named.items() if each != tenant]
        unnamed_bytes = self._shares.capacity_bytes - sum(named.values())
        return int(_LEFT_TO_NAMED * sum(unused)) + int(_LEFT_TO_NEW * unnamed_bytes)

    def _drop(self, item: StoredItem) -> None:
        self._not_idle(item)
        del self._items[item.tenant, item.digest]
        _subtract(self._bytes_of, item.tenant, item.size_bytes)
        self._tenants[item.digest].remove(item.tenant)
        if not self._tenants[item.digest]:
            del self._tenants[item.digest]
        item.path.unlink(missing_ok=True)


def _subtract(counts: Counter[str], name: str, num_bytes: int) -> None:
    """Leaves no name behind that has nothing."""
    counts[name] -= num_bytes
    if not counts[name]:
        del counts[name]


def _not_here(digest: bytes) -> NotFoundError:
    return NotFoundError("digest", f"{digest.hex()[:16]}… is not in the store (uploaded items expire)")
