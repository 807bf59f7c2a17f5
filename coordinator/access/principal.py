"""Whom a call comes from, as its key says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coordinator.errors import NotAllowedError


class Right(StrEnum):
    INFER = "infer"  # generate, upload, ask what is served
    METRICS = "metrics"  # read what Prometheus gets
    ADMIN = "admin"  # see and steer the whole cluster, its metrics included


@dataclass(frozen=True, slots=True)
class Principal:
    tenant: str  # of its calls that name none
    rights: frozenset[Right]
    tenants: frozenset[str] | None = frozenset()  # that it may name besides its own; None: any
    key_id: str | None = None  # as logs name the key; None: no key was asked for

    def tenant_of(self, named: str) -> str:
        """The tenant of a call that names this one, or none (""). Raises NotAllowedError("tenant")."""
        if not named or named == self.tenant or self.tenants is None or named in self.tenants:
            return named or self.tenant
        raise NotAllowedError("tenant", "is not one that the API key may speak for")

    def reach(self, named: str) -> str:
        """Whose things an order is about that names this tenant, or none (""): "" is all tenants'.

        Raises NotAllowedError("tenant").
        """
        return named if self.tenants is None else self.tenant_of(named)

    def check_right(self, right: Right) -> None:
        """Raises NotAllowedError("authorization")."""
        is_included = right is Right.METRICS and Right.ADMIN in self.rights
        if right not in self.rights and not is_included:
            raise NotAllowedError("authorization", f"the API key has no right {right.value!r}")
