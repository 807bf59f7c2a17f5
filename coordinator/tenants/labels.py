"""Tenants as those who watch tell them apart: bounded in number, whatever names clients think of."""

from __future__ import annotations

from collections.abc import Callable, Container

OTHER = "other"


class TenantLabels:
    """Tenants of the settings have a label of their own, and so have the first `most_unnamed` others."""

    def __init__(self, named: Callable[[], Container[str]], most_unnamed: int = 32) -> None:
        """`named` gives those of the settings in force."""
        self._named = named
        self._most_unnamed = most_unnamed
        self._unnamed: set[str] = set()

    def of(self, tenant: str) -> str:
        if tenant in self._unnamed or tenant in self._named():
            return tenant
        if len(self._unnamed) >= self._most_unnamed:
            return OTHER
        self._unnamed.add(tenant)
        return tenant
