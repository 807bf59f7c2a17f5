"""Hand-overs that wait for blocks on the decode instance."""

from __future__ import annotations

from collections import deque

from simulator.job import Job


class Leases:
    """In order of asking; those of an earlier attempt drop out."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[Job, int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self, job: Job, blocks: int) -> None:
        self._waiting.append((job, job.attempt, blocks))

    def first(self) -> tuple[Job, int] | None:
        """Whose turn it is, and the blocks it needs."""
        while self._waiting:
            job, attempt, blocks = self._waiting[0]
            if attempt == job.attempt:
                return job, blocks
            self._waiting.popleft()
        return None

    def grant(self, job: Job, blocks: int) -> None:
        """The first one has got its blocks."""
        self._waiting.popleft()
        job.leased_blocks, job.has_lease = blocks, True
