"""What each tenant keeps whatever others do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes of a tier that are a tenant's own. What a tenant does not fill others may use until it does.

    Tenants that are not named share what the named ones leave in equal parts. Raises ValueError if the named
    shares are more than there is.
    """

    capacity_bytes: int
    named_bytes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.named_bytes.values(), default=0) < 0:
            raise ValueError("shares: should not be negative")
        if sum(self.named_bytes.values()) > self.capacity_bytes:
            raise ValueError(f"shares: are more than the {self.capacity_bytes} bytes there are")

    def own_bytes(self, tenant: str, present: Collection[str]) -> int:
        """`present`: all tenants that have something or ask for something, this one included."""
        if tenant in self.named_bytes:
            return self.named_bytes[tenant]
        return self.equal_bytes(sum(each not in self.named_bytes for each in present))

    def equal_bytes(self, num_unnamed: int) -> int:
        """Of each of so many tenants that are not named."""
        return (self.capacity_bytes - sum(self.named_bytes.values())) // num_unnamed

    def all_own_bytes(self, present: Collection[str]) -> dict[str, int]:
        """`own_bytes` of each of them."""
        equal = next((self.own_bytes(each, present) for each in present if each not in self.named_bytes), 0)
        return {each: self.named_bytes.get(each, equal) for each in present}
