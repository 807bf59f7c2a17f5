"""What an instance's caches are told at its start."""

from __future__ import annotations

from dataclasses import dataclass

from core.cache.eviction import POLICY_NAMES

DEFAULT_POLICY = POLICY_NAMES[0]


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Of one cache, of KV or of embeddings; raises ValueError naming a field that makes no sense."""

    policy: str = DEFAULT_POLICY
    host_bytes: int = 0  # of the tier in RAM under the device's pool
    ttl_s: float | None = None  # how long an entry may go unused; None: as long as there is room

    def __post_init__(self) -> None:
        check_policy(self.policy)
        check_ttl(self.ttl_s)
        if self.host_bytes < 0:
            raise ValueError("host_bytes: should not be negative")


def check_policy(policy: str) -> None:
    if policy not in POLICY_NAMES:
        raise ValueError(f"cache_policy: {policy!r} is not one of {', '.join(POLICY_NAMES)}")


def check_ttl(ttl_s: float | None) -> None:
    if ttl_s is not None and not ttl_s > 0:
        raise ValueError("cache_ttl_s: is above 0")
