"""How much an instance keeps, for how long, and whose goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.cache.policies import POLICIES


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Of one pool's cache. Checked when built; ValueError names the field."""

    policy: str = "seconds-saved"
    host_bytes: int = 0  # RAM under the device
    ttl_s: float | None = None  # an entry may go unused so long; None: as long as there is room
    shares: Mapping[str, float] = field(default_factory=dict)  # of each tier, that are a tenant's own

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy: is one of {', '.join(POLICIES)}")
        if self.host_bytes < 0:
            raise ValueError("host_bytes: is not below 0")
        if self.ttl_s is not None and not self.ttl_s > 0:
            raise ValueError("ttl_s: is above 0")
        if any(share < 0 for share in self.shares.values()) or sum(self.shares.values()) > 1:
            raise ValueError("shares: are not below 0 and at most 1 together")

    def own_bytes(self, capacity_bytes: int) -> dict[str, int]:
        """Each named tenant's share of a tier, as core.cache.shares takes it."""
        return {tenant: int(share * capacity_bytes) for tenant, share in self.shares.items()}
