"""Who is next where tenants wait for one thing: each tenant in turn, and of a tenant who came first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    def __init__(self) -> None:
        # By tenant, the one that is next first; no list is empty.
        self._waiting: OrderedDict[str, list[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def of(self, tenant: str) -> tuple[T, ...]:
        """In the order they came."""
        return tuple(self._waiting.get(tenant, ()))

    def push(self, tenant: str, item: T) -> None:
        """A tenant that has nobody waiting comes behind all others."""
        self._waiting.setdefault(tenant, []).append(item)

    def pop(self) -> T:
        """Raises KeyError where nobody waits."""
        tenant, items = self._waiting.popitem(last=False)
        item = items.pop(0)
        if items:
            self._waiting[tenant] = items
        return item

    def remove(self, tenant: str, item: T) -> None:
        """Raises KeyError, ValueError where it does not wait."""
        self._waiting[tenant].remove(item)
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    def everybody(self) -> list[tuple[str, T]]:
        return [(tenant, item) for tenant, items in self._waiting.items() for item in items]
