"""What an instance's caches are told at its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from core.cache.eviction import POLICY_NAMES

DEFAULT_POLICY = POLICY_NAMES[0]

TenantShares = tuple[tuple[str, float], ...]  # tenant and fraction of each tier


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Of one cache, of KV or of embeddings; raises ValueError naming a field that makes no sense."""

    policy: str = DEFAULT_POLICY
    host_bytes: int = 0  # of the tier in RAM under the device's pool
    ttl_s: float | None = None  # how long an entry may go unused; None: as long as there is room
    shares: Mapping[str, float] = field(default_factory=dict)  # of each tier, by tenant

    def __post_init__(self) -> None:
        check_policy(self.policy)
        check_ttl(self.ttl_s)
        if self.host_bytes < 0:
            raise ValueError("host_bytes: should not be negative")
        check_shares(tuple(self.shares.items()))

    def share_bytes(self, capacity_bytes: int) -> dict[str, int]:
        """Each named tenant's own bytes of a tier."""
        return {tenant: int(share * capacity_bytes) for tenant, share in self.shares.items()}


def parse_shares(words: Iterable[str]) -> TenantShares:
    """From "TENANT=FRACTION" each; raises ValueError naming the word that is none."""
    shares: list[tuple[str, float]] = []
    for word in words:
        tenant, _, fraction = word.rpartition("=")
        try:
            shares.append((tenant, float(fraction)))
        except ValueError:
            raise ValueError(f"cache_shares: {word!r} is not TENANT=FRACTION") from None
    made = tuple(shares)
    check_shares(made)
    return made


def check_shares(shares: TenantShares) -> None:
    """Raises ValueError for names that are empty or twice, and fractions of more than the whole."""
    names = [tenant for tenant, _ in shares]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("cache_shares: each tenant is named once")
    fractions = [fraction for _, fraction in shares]
    if not all(0 <= fraction <= 1 for fraction in fractions) or sum(fractions) > 1:
        raise ValueError("cache_shares: fractions are between 0 and 1, and 1 at most together")


def check_policy(policy: str) -> None:
    if policy not in POLICY_NAMES:
        raise ValueError(f"cache_policy: is one of {', '.join(POLICY_NAMES)}")


def check_ttl(ttl_s: float | None) -> None:
    if ttl_s is not None and not ttl_s > 0:
        raise ValueError("cache_ttl_s: is above 0")
