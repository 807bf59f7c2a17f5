"""The media items in keeping: leased to requests, else the least recently used goes first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coordinator.errors import NotFoundError, OverloadedError
from coordinator.media.picture import PictureHeader
from core.clock import Clock

_RETRY_AFTER_S = 1.0


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
    brought, by a digest or by how long an item stays.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._items: dict[tuple[str, bytes], StoredItem] = {}  # least recently used first
        self._tenants: dict[bytes, list[str]] = {}  # who has brought it, by digest
        self._incoming_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._incoming_bytes + sum(item.size_bytes for item in self._items.values())

    @property
    def num_leases(self) -> int:
        return sum(len(item.leases) for item in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def reserve(self, num_bytes: int) -> None:
        """Makes room for bytes on their way in. Raises OverloadedError if all others are leased."""
        for item in list(self._items.values()):
            if self.num_bytes + num_bytes <= self._max_bytes:
                break
            if not item.leases:
                self._drop(item)
        if self.num_bytes + num_bytes > self._max_bytes:
            raise OverloadedError(
                "the media store is full of items in use", _RETRY_AFTER_S, "media.store_bytes"
            )
        self._incoming_bytes += num_bytes

    def unreserve(self, num_bytes: int) -> None:
        """The bytes are an item now, or did not come."""
        self._incoming_bytes -= num_bytes

    def add(
        self, tenant: str, digest: bytes, size_bytes: int, header: PictureHeader, path: Path
    ) -> StoredItem:
        """Takes the file over; where the tenant's item is here already, the new file goes."""
        present = self._items.get((tenant, digest))
        if present is not None:
            path.unlink(missing_ok=True)
            self._touch(present)
            return present
        item = StoredItem(tenant, digest, size_bytes, header, path, self._clock.now_s())
        self._items[tenant, digest] = item
        self._tenants.setdefault(digest, []).append(tenant)
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
        item.leases.add(request_id)
        self._touch(item)

    def release(self, request_id: str) -> None:
        for item in self._items.values():
            if request_id in item.leases:
                item.leases.remove(request_id)
                item.used_s = self._clock.now_s()

    def sweep(self) -> None:
        """Drops items without lease that nobody used for the time to live."""
        oldest_s = self._clock.now_s() - self._ttl_s
        for item in list(self._items.values()):
            if not item.leases and item.used_s < oldest_s:
                self._drop(item)

    def _touch(self, item: StoredItem) -> None:
        item.used_s = self._clock.now_s()
        key = item.tenant, item.digest
        self._items[key] = self._items.pop(key)

    def _drop(self, item: StoredItem) -> None:
        del self._items[item.tenant, item.digest]
        self._tenants[item.digest].remove(item.tenant)
        if not self._tenants[item.digest]:
            del self._tenants[item.digest]
        item.path.unlink(missing_ok=True)


def _not_here(digest: bytes) -> NotFoundError:
    return NotFoundError("digest", f"{digest.hex()[:16]}… is not in the store (uploaded items expire)")
