"""What a sender says when all is written, and what the receiver answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """All was written: the receiver may hand the lease's contents to its engine."""

    lease_id: int
    num_tokens: int
    outputs: tuple[int, ...] = ()  # for KV: the tokens made so far
    written_bytes: int  # counted by the transport; tokens that were written twice count twice
    checksums: tuple[int, ...] = ()  # CRC-32 per receiver block, where the receiver wants them


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the receiver found to be there and handed on."""

    num_tokens: int
    num_planes: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class Promise:
    """A commit as it stands before all is written."""

    lease_id: int
    num_tokens: int
    outputs: tuple[int, ...]
    checksums: tuple[int, ...]
    expected: Arrived  # what the receiver must find

    def record(self, written_bytes: int) -> CommitRecord:
        return CommitRecord(
            lease_id=self.lease_id,
            num_tokens=self.num_tokens,
            outputs=self.outputs,
            written_bytes=written_bytes,
            checksums=self.checksums,
        )
