"""What transfers cost, per peer and transport, ready to be exported."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class TransferStats:
    """Counters of one pair and transport, as the sender sees them."""

    committed: int = 0
    aborted: int = 0
    in_flight: int = 0  # leases held
    waiting: int = 0  # for their turn to ask for a lease; under transport ""
    size_bytes: int = 0  # of committed transfers
    seconds: float = 0.0  # from grant to acknowledged commit, summed
    failures: Counter[str] = field(default_factory=Counter)  # by cause


@dataclass(slots=True)
class StatsTable:
    """By (peer instance id, transport); failures before a grant stand under transport ""."""

    by_pair: defaultdict[tuple[str, str], TransferStats] = field(
        default_factory=lambda: defaultdict(TransferStats)
    )

    def of(self, instance_id: str, transport: str) -> TransferStats:
        return self.by_pair[instance_id, transport]

    @property
    def in_flight(self) -> int:
        return sum(stats.in_flight for stats in self.by_pair.values())
