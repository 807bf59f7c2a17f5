"""Media items that wait for their turn on one device."""

from __future__ import annotations

from collections import deque

from coordinator.policy.work import MediaWork
from core.costs import EncodeCosts
from simulator.job import Job

MOST_TOKENS = 4096  # of one batch, as in the live engine
Item = tuple[Job, int, float]  # job, index of its media item, seconds on the device


class EncodeQueue:
    """In order of arrival; items of an earlier attempt drop out."""

    __slots__ = ("_costs", "_preprocesses", "waiting")

    def __init__(self, costs: EncodeCosts, *, preprocesses: bool = False) -> None:
        """With `preprocesses` the device waits for the decoding of each."""
        self._costs = costs
        self._preprocesses = preprocesses
        self.waiting: deque[tuple[Job, int, int]] = deque()  # asked every turn whether it is empty

    def add(self, job: Job, index: int) -> None:
        self.waiting.append((job, index, job.attempt))

    def next_batch(self) -> list[Item]:
        """Up to the bound of tokens, and at least one item; empty if none waits any more."""
        batch: list[Item] = []
        tokens = 0
        while self.waiting:
            job, index, attempt = self.waiting[0]
            if attempt == job.attempt:
                size = job.work.media[index].num_tokens
                if batch and tokens + size > MOST_TOKENS:
                    break
                batch.append((job, index, self._seconds(job.work.media[index])))
                tokens += size
            self.waiting.popleft()
        return batch

    def _seconds(self, item: MediaWork) -> float:
        seconds = self._costs.encode_s(item.num_tokens)
        return seconds + self._costs.preprocess_s(item.pixels) if self._preprocesses else seconds
