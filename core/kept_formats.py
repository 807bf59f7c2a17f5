"""Compiled formats, of each tenant those that it used last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from core.output_format import OutputFormat

T = TypeVar("T")


class KeptFormats(Generic[T]):
    """Up to `most` together. Where there is no room, whoever has most loses the one used longest ago: so a
    tenant with few formats keeps them, however many others use.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Tenants, and the formats of each, in order of their last use; no tenant is without.
        self._kept: OrderedDict[str, OrderedDict[OutputFormat, T]] = OrderedDict()

    def __len__(self) -> int:
        """One that several tenants use counts for each."""
        return sum(map(len, self._kept.values()))

    def find(self, tenant: str, form: OutputFormat) -> T | None:
        """The tenant's from now on, whoever had it compiled."""
        found = next((forms[form] for forms in self._kept.values() if form in forms), None)
        if found is not None:
            self.keep(tenant, form, found)
        return found

    def keep(self, tenant: str, form: OutputFormat, compiled: T) -> None:
        forms = self._kept.setdefault(tenant, OrderedDict())
        forms[form] = compiled
        forms.move_to_end(form)
        self._kept.move_to_end(tenant)
        while len(self) > self._most:
            self._drop_one()

    def _drop_one(self) -> None:
        """Of tenants with as many, of the one that was here longest ago."""
        owner = max(self._kept, key=lambda tenant: len(self._kept[tenant]))
        self._kept[owner].popitem(last=False)
        if not self._kept[owner]:
            del self._kept[owner]
