"""What the transfer benchmark reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Medians of one payload on one transport."""

    transport: str
    num_blocks: int
    size_bytes: int
    first_s: float  # whole transfer, the first of this size: it may map pages
    whole_s: float
    write_s: float
    private_memcpy_s: float
    shared_memcpy_s: float
    sender_cpu_s_per_gib: float
    receiver_cpu_s_per_gib: float

    @property
    def share_of_memcpy(self) -> float:
        """Of the faster of the two copies."""
        return min(self.private_memcpy_s, self.shared_memcpy_s) / self.write_s

    def rate(self, seconds: float) -> float:
        """GiB/s."""
        return self.size_bytes / seconds / 2**30


@dataclass(frozen=True, slots=True)
class Latency:
    """One block, from the first push: until the receiver's thread has it, until the sender knows."""

    transport: str
    count: int
    ready_p50_us: float
    ready_p90_us: float
    committed_p50_us: float
    committed_p90_us: float


def latency_header() -> str:
    return f"{'':<11}{'one block':>10}{'ready p50':>12}{'p90':>8}{'committed p50':>16}{'p90':>8}  us"


def latency_row(m: Latency) -> str:
    return (
        f"{m.transport:<11}{m.count:>10}{m.ready_p50_us:>12.0f}{m.ready_p90_us:>8.0f}"
        f"{m.committed_p50_us:>16.0f}{m.committed_p90_us:>8.0f}"
    )


def bandwidth_header() -> str:
    return (
        f"{'':<11}{'MiB':>8}{'first ms':>10}{'whole ms':>10}{'write ms':>10}{'GiB/s':>8}"
        f"{'memcpy: private':>17}{'shared':>8}{'share':>7}{'CPU s/GiB: sender':>19}{'receiver':>10}"
    )


def bandwidth_row(m: Bandwidth) -> str:
    return (
        f"{m.transport:<11}{m.size_bytes / 2**20:>8.2f}{m.first_s * 1e3:>10.2f}{m.whole_s * 1e3:>10.2f}"
        f"{m.write_s * 1e3:>10.2f}{m.rate(m.write_s):>8.2f}{m.rate(m.private_memcpy_s):>17.2f}"
        f"{m.rate(m.shared_memcpy_s):>8.2f}{m.share_of_memcpy:>7.0%}"
        f"{m.sender_cpu_s_per_gib:>19.2f}{m.receiver_cpu_s_per_gib:>10.2f}"
    )
