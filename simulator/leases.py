"""Hand-overs that wait for blocks on the decode instance."""

from __future__ import annotations

from collections import deque

from simulator.job import Job


class Leases:
    """In order of asking; those of an earlier attempt drop out."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[tuple[Job, int, int]] = deque()  # asked whenever blocks are free again

    def ask(self, job: Job, blocks: int) -> None:
        self.waiting.append((job, job.attempt, blocks))

    def first(self) -> tuple[Job, int] | None:
        """Whose turn it is, and the blocks it needs."""
        while self.waiting:
            job, attempt, blocks = self.waiting[0]
            if attempt == job.attempt:
                return job, blocks
            self.waiting.popleft()
        return None

    def grant(self, job: Job, blocks: int) -> None:
        """The first one has got its blocks."""
        self.waiting.popleft()
        job.leased_blocks, job.has_lease = blocks, True
