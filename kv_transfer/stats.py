"""What transfers cost, per peer and transport, ready to be exported."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PairCounters:
    """What one peer was sent over one transport. Everything but `in_flight` only grows."""

    peer_instance_id: str
    transport: str  # "" for what failed before one was chosen
    committed: int
    aborted: int
    in_flight: int
    size_bytes: int  # of committed transfers
    seconds: float  # from grant to acknowledged commit, summed
    failures: Mapping[str, int]  # by cause


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

    def snapshot(self) -> tuple[PairCounters, ...]:
        """All counters as they are now, by peer and transport; later transfers do not change it."""
        return tuple(_record(*pair, stats) for pair, stats in sorted(self.by_pair.items()))

    @property
    def in_flight(self) -> int:
        return sum(stats.in_flight for stats in self.by_pair.values())


def _record(peer_instance_id: str, transport: str, stats: TransferStats) -> PairCounters:
    return PairCounters(
        peer_instance_id=peer_instance_id,
        transport=transport,
        committed=stats.committed,
        aborted=stats.aborted,
        in_flight=stats.in_flight,
        size_bytes=stats.size_bytes,
        seconds=stats.seconds,
        failures=dict(stats.failures),
    )
